"""What keepalived makes of one cluster with four pasts: the same real servers, all up, and not the same tables.

An ECMP move takes a flow to an L4 node that has no entry for it and asks its table; where two tables disagree, it
breaks. The figures are for comparison with lbnode's own, which come to one table whatever has happened before.

Four L4 nodes, thirteen L7 nodes, both families. Each L4 node asks every L7 node for its health URI; one server process
answers for all of them, and says no to those whom the test names.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbnode import maglev
from lbnode.agent import tables
from lbnode.config.model import Cluster
from lbnode.lab import links
from lbnode.lab.build import templates
from lbnode.lab.namespaces import Node
from lbnode.lab.stacks import keepalived
from lbnode.lab.stacks.keepalived_files import FAST, keepalived_conf
from lbnode.lab.supervisor import Program, Supervisor
from lbnode.lab.wait import wait_until
from lbnode.resources import ServiceKey
from lbnode.templates import share

pytestmark = pytest.mark.kernel

L7 = [f"l7-{number}" for number in range(1, 14)]
L4 = ["calm", "deletes", "restart", "order"]
VIPS = {4: "198.51.100.1", 6: "2001:db8:c633:6401::1"}
FLOWS = 4000
EFFECT_S = 60.0
REFUSED = Path("/run/refused")
"""In the server's node: lines "address of the L4 node, address of the L7 node"."""


def cluster() -> Cluster:
    def nodes(names: Sequence[str], role: str, first: int) -> dict[str, dict[str, str]]:
        return {
            name: {"role": role, "ipv4": f"192.0.2.{first + at}", "ipv6": f"2001:db8:c000:280::{first + at}"}
            for at, name in enumerate(names)
        }

    text = yaml.safe_dump(
        {
            "bgp": {"local_asn": 64501, "peers": {"r1": {"address": "192.0.2.129", "asn": 64500}}},
            "nodes": nodes(L4, "l4", 141) | nodes(L7, "l7", 151) | nodes(["s1"], "backend", 171),
            "services": {"www": {"vips": list(VIPS.values()), "pool": "web"}},
            "pools": {"web": {}},
        }
    )
    return Cluster.model_validate(yaml.safe_load(text))


def refusals() -> list[str]:
    return REFUSED.read_text().splitlines()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    asker, asked = (writer.get_extra_info(end)[0] for end in ("peername", "sockname"))
    refused = f"{asker} {asked}" in refusals()
    if refused:
        sys.stdout.write(f"{asker} {asked} refused\n")
    writer.write(b"HTTP/1.0 503 No\r\n\r\n" if refused else b"HTTP/1.0 200 OK\r\n\r\nok\n")
    await writer.drain()
    writer.close()


def serve() -> int:
    """Every L7 node's health URI, until the end."""

    async def run() -> None:
        port = cluster().health.port
        for name in L7:
            node = cluster().nodes[name]
            for address in (node.ipv4, node.ipv6):
                await asyncio.start_server(answer, str(address), port)
        sys.stdout.write("ready\n")
        await asyncio.Event().wait()

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(run())
    return 0


@dataclass
class Site:
    """The nodes, and what has been refused so far: pairs of an L4 and an L7 node."""

    nodes: dict[str, Node]
    supervisor: Supervisor
    refused: set[tuple[str, str]]

    def start(self, l4: str, l7: Sequence[str]) -> None:
        files = templates(share("lab") / "three-tier" / "keepalived")
        self.nodes[l4].write(keepalived.CONF, keepalived_conf(files, cluster(), l4, l7, FAST))
        self.supervisor.add(Program(self.nodes[l4], keepalived.KEEPALIVED, keepalived.become_keepalived))

    def refuse(self, l4: str, l7: str, whether: bool) -> None:
        """Whether an L7 node's health URI says no to an L4 node."""
        (self.refused.add if whether else self.refused.discard)((l4, l7))
        known = cluster().nodes
        pairs = [(known[one], known[other]) for one, other in sorted(self.refused)]
        lines = [f"{one.address(v)} {other.address(v)}" for one, other in pairs for v in (4, 6)]
        self.nodes["servers"].write(REFUSED, "\n".join(lines))

    def rows(self, l4: str, version: int) -> list[str]:
        """The L7 nodes that IPVS on an L4 node has, oldest row first."""
        names = {str(cluster().nodes[name].address(version)): name for name in L7}
        found = self.read(l4, version)
        return [names[row["address"]] for row in found["rows"]] if found else []

    def wait_for(self, l4: str, l7: Sequence[str]) -> None:
        """Until an L4 node has rows for exactly these L7 nodes, in both families, in any order."""
        done: Callable[[], bool] = lambda: all(sorted(self.rows(l4, v)) == sorted(l7) for v in (4, 6))  # noqa: E731
        wait_until(done, EFFECT_S, f"{len(l7)} rows on {l4}", 0.1)

    def outage(self, l4: str, l7: str) -> None:
        """An L7 node fails for one L4 node, and comes back."""
        with self.failing(l4, l7):
            pass

    @contextmanager
    def failing(self, l4: str, l7: str) -> Iterator[None]:
        self.refuse(l4, l7, True)
        self.wait_for(l4, [name for name in L7 if name != l7])
        yield
        self.refuse(l4, l7, False)
        self.wait_for(l4, L7)

    def read(self, l4: str, version: int) -> dict[str, Any]:
        """The service as the kernel has it; empty when it has none."""
        key = str(ServiceKey(VIPS[version], "tcp", 80))
        return self.nodes[l4].call(lambda: tables.read((), key)).get(key, {})

    def table(self, l4: str, version: int) -> maglev.Table:
        found = self.read(l4, version)
        assert (found["scheduler"], found["flags"]) == ("mh", ["mh-port"])
        servers = [maglev.Server(**row) for row in found["rows"]]
        return maglev.build(servers, 4 if version == 4 else 6, flags=found["flags"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All L4 nodes running, all L7 nodes in use by all of them."""
    with ExitStack() as stack:
        nodes = {name: stack.enter_context(Node(name)) for name in (*L4, "servers", "switch")}
        known = cluster().nodes
        ports = [links.Port(nodes[name], "infra", (f"{known[name].ipv4}/25", f"{known[name].ipv6}/64")) for name in L4]
        own = [text for name in L7 for text in (f"{known[name].ipv4}/25", f"{known[name].ipv6}/64")]
        links.lan(nodes["switch"], "infra", [*ports, links.Port(nodes["servers"], "infra", tuple(own))])
        supervisor = stack.enter_context(Supervisor(tmp_path_factory.mktemp("logs")))
        made = Site(nodes, supervisor, set())
        nodes["servers"].write(REFUSED, "")
        key = supervisor.add(Program(nodes["servers"], "health", serve))
        wait_until(lambda: supervisor.log(key).exists() and supervisor.log(key).read_text(), EFFECT_S, "the servers")
        for name in L4:
            made.start(name, L7[::-1] if name == "order" else L7)
        for name in L4:
            made.wait_for(name, L7)
        yield made


def holders(table: maglev.Table, version: int) -> list[str]:
    """Who gets each of the flows: one client address for every 20 source ports."""
    prefix = "203.0.113." if version == 4 else "2001:db8:cb00:7100::"
    found = []
    for number in range(FLOWS):
        server = maglev.lookup(table, f"{prefix}{1 + number // 20}", 32768 + number % 20 * 977).server
        assert server is not None
        found.append(server.address)
    return found


@pytest.mark.parametrize("version", [4, 6])
def test_four_pasts_make_tables_that_differ(site: Site, version: int, capsys: pytest.CaptureFixture[str]) -> None:
    if version == 4:
        live_through(site)
    tables = {name: site.table(name, version) for name in L4}
    assert len({frozenset(table.servers) for table in tables.values()}) == 1
    flows = {name: holders(table, version) for name, table in tables.items()}
    differ = {
        f"{one}/{other}": sum(a != b for a, b in zip(flows[one], flows[other], strict=True))
        for one, other in combinations(L4, 2)
    }
    split = sum(len(set(those)) > 1 for those in zip(*flows.values(), strict=True))
    tell(capsys, f"keepalived, IPv{version}: the four tables disagree on {split} of {FLOWS} flows; {differ}")
    assert split > 0
    assert len({maglev.fingerprint(table) for table in tables.values()}) > 1


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


def live_through(site: Site) -> None:
    """`deletes` sees two L7 nodes fail and come back; on `restart` keepalived is restarted while one is out."""
    for name in ("l7-2", "l7-9"):
        site.outage("deletes", name)
    with site.failing("restart", "l7-5"):
        key = "restart/keepalived"
        site.supervisor.stop(key)
        assert site.rows("restart", 4) == []
        site.supervisor.start(key)
        site.wait_for("restart", [name for name in L7 if name != "l7-5"])


def test_killed_it_forgets_to_delete_who_fails_meanwhile(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The next keepalived believes nobody up until it has asked, and so finds nothing to remove."""
    key, dead = "calm/keepalived", "l7-7"
    site.wait_for("calm", L7)
    # All of its processes: when only the first is killed, the one that checks removes every row before it ends.
    os.killpg(site.supervisor.pid(key) or 0, signal.SIGKILL)
    site.supervisor.stop(key)
    site.refuse("calm", dead, True)
    log, asked = site.supervisor.log(key), site.supervisor.log("servers/health")
    heard, said = len(asked.read_text()), len(log.read_text())
    site.supervisor.start(key)
    own, address = cluster().nodes["calm"].ipv4, cluster().nodes[dead].ipv4
    refused, alive = f"{own} {address} refused", f"Adding service [{cluster().nodes['l7-8'].ipv4}]"
    wait_until(lambda: asked.read_text()[heard:].count(refused) > 2, EFFECT_S, f"three times {refused}", 0.1)
    wait_until(lambda: alive in log.read_text()[said:], EFFECT_S, alive, 0.1)
    assert dead in site.rows("calm", 4)
    lost = sum(holder == str(address) for holder in holders(site.table("calm", 4), 4))
    tell(capsys, f"keepalived, killed while an L7 node fails: {lost} of {FLOWS} new flows go to the dead one")
    assert lost > 0
    site.refuse("calm", dead, False)
