"""Three L4 nodes, three histories, one table: a flow that ECMP takes from one to another finds its real server again.

    l4-1   rows deleted and added again by hand, mended under traffic
    l4-2   its table lost during an outage, and made anew while a server is down
    l4-3   another order of nodes in its cluster file, servers that came later, one that was taken out and came back

Each is what its role wants, by the real driver, in a network of its own; what IPVS decides is read back from it.
"""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from lbnode import maglev
from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.drivers import Observed, Result
from lbnode.health.state import Health, Probe
from lbnode.impact import remembering, table_states, tables
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.namespaces import Node
from lbnode.paths import Paths
from lbnode.plan import TABLE_ROWS, Change
from lbnode.reconcile import Pass, run
from lbnode.resources import Announcement, Row, ServiceKey
from lbnode.roles.inputs import Desired, Inputs
from lbnode.roles.l4 import desired
from lbnode.roles.prober import Prober
from lbnode.templates import load

pytestmark = pytest.mark.kernel

FILE = """
bgp: {{local_asn: 65001, peers: {{r4: {{address: 192.0.2.1, asn: 65000}}, r6: {{address: "2001:db8::1", asn: 65000}}}}}}
nodes:
{nodes}
services:
  dns: {{vips: [198.51.100.1, "2001:db8:5::1"], ports: [53], protocol: udp, pool: dns, through: backend}}
pools:
  dns: {{check: {{type: tcp}}}}
"""
VIPS = {4: ServiceKey("198.51.100.1", "udp", 53), 6: ServiceKey("2001:db8:5::1", "udp", 53)}
SERVERS = [f"s{number}" for number in range(1, 11)]
FLOWS = 4000
TEMPLATES = load()


def cluster(order: Sequence[str] = SERVERS) -> Cluster:
    """The servers stand in the file in this order; in the tables, in that of their serials."""
    nodes = [
        f'  l4-{number}: {{role: l4, ipv4: 192.0.2.14{number}, ipv6: "2001:db8::14{number}"}}' for number in (1, 2, 3)
    ]
    for name in order:
        number = int(name[1:])
        # Serials neither by name nor by address.
        words = f"role: backend, serial: {number * 7 % 11}, weight: {100 - number % 3}, ipv4: 192.0.2.{100 + number}"
        nodes.append(f'  {name}: {{{words}, ipv6: "2001:db8::{100 + number}"}}')
    return parse(FILE.format(nodes="\n".join(nodes)))


class Announcer:
    """Tells what the test says; while a VIP is announced its table is changed under traffic."""

    kinds: tuple[type[Row], ...] = (Announcement,)

    def __init__(self, rows: tuple[Row, ...]) -> None:
        self.rows = rows

    def observe(self, wanted: Sequence[Row]) -> Observed:
        return Observed(self.rows)

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        return [Result(change) for change in changes]


@dataclass
class L4:
    """One node: its file, what its probes say, and whether clients' packets come to it."""

    name: str
    node: Node
    run_directory: Path
    cluster: Cluster = field(default_factory=cluster)
    announced: bool = False
    wanted: tuple[Row, ...] = ()

    def do_pass(self, down: Sequence[str] = ()) -> Pass:
        """As an agent does it that has just started."""
        prober = Prober(self.cluster, self.name)
        health: dict[Probe, Health] = {
            probe: Health(False, "no answer")
            for server in down
            for version in (4, 6)
            for probe in prober.health("dns", server, version)  # type: ignore[arg-type]
        }
        whole = desired(Inputs(self.cluster, self.name, health=health, templates=TEMPLATES)).rows
        self.wanted = tuple(row for row in whole if isinstance(row, TABLE_ROWS))
        told = tuple(
            Announcement(f"{key.vip}/{32 if version == 4 else 128}", "192.0.2.1", "192.0.2.2")
            for version, key in VIPS.items()
            if self.announced
        )
        drivers = [IpvsDriver(Paths(run=self.run_directory)), Announcer(told)]
        done = self.node.call(lambda: run(Desired((*self.wanted, *told)), drivers, force=True))
        assert done.errors == []
        return done

    def ipvsadm(self, *lines: str) -> None:
        self.node.run(["ipvsadm", "--restore"], input="\n".join(lines) + "\n", check=True)

    def seen(self) -> tuple[Row, ...]:
        return self.node.call(lambda: IpvsDriver(Paths(run=self.run_directory)).observe(self.wanted)).rows

    def fingerprints(self) -> dict[ServiceKey, str]:
        """Of the tables as the kernel has them."""
        return {state.service: state.found for state in table_states(self.seen(), self.wanted)}

    def said(self, version: int) -> dict[tuple[str, int], str]:
        """Where each flow should go, by the table that the kernel has."""
        table = tables(remembering(self.seen(), self.wanted))[VIPS[version]]
        answers = {flow: maglev.lookup(table, *flow).server for flow in sources(version)}
        return {flow: server.address for flow, server in answers.items() if server}

    def decided(self, version: int) -> dict[tuple[str, int], str]:
        """Where the kernel sends each flow."""
        self.node.call(lambda: send(version))
        key = VIPS[version]
        found = {}
        for line in self.node.run(["cat", "/proc/net/ip_vs_conn"], check=True).stdout.splitlines()[1:]:
            words = line.split()
            if (address(words[3]), int(words[4], 16)) == (key.vip, key.port):
                found[address(words[1]), int(words[2], 16)] = address(words[5])
        return found


def address(text: str) -> str:
    return str(ip_address(text if ":" in text else int(text, 16)))


def sources(version: int) -> list[tuple[str, int]]:
    found = []
    for number in range(FLOWS):
        low = number * 0x9E3779B97F4A7C15
        host = IPv6Address("2001:db8:c11e::") + low % 2**80 if version == 6 else IPv4Address("203.0.113.0") + low % 254
        found.append((str(host), 1024 + number * 40503 % 64000))
    return found


def send(version: int) -> None:
    """A datagram of each flow, with its header written by hand: no socket is as many clients."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    key = VIPS[version]
    vip = socket.inet_pton(family, key.vip)
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for host, port in sources(version):
            source = socket.inet_pton(family, host)
            # The checksum is not looked at on the way; 0 means none in IPv4 alone.
            datagram = struct.pack("!HHHH", port, key.port, 9, 0 if version == 4 else 1) + b"?"
            if version == 4:
                head = struct.pack("!BBHHHBBH", 0x45, 0, 29, 0, 0, 64, socket.IPPROTO_UDP, 0) + source + vip
            else:
                head = struct.pack("!IHBB", 6 << 28, 9, socket.IPPROTO_UDP, 64) + source + vip
            raw.sendto(head + datagram, (key.vip, 0))


ROUTES = [
    ["address", "add", "198.51.100.1/32", "dev", "lo"],
    ["address", "add", "2001:db8:5::1/128", "dev", "lo", "nodad"],
    ["link", "add", "wire", "type", "dummy"],
    ["link", "set", "wire", "up"],
    ["address", "add", "192.0.2.254/24", "dev", "wire"],
    ["address", "add", "2001:db8::fffe/64", "dev", "wire", "nodad"],
]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Mapping[str, L4]]:
    with ExitStack() as stack:
        made = {}
        for name in ("l4-1", "l4-2", "l4-3"):
            node = stack.enter_context(Node(name, private=False))
            for command in ROUTES:
                node.run(["ip", *command], check=True)
            made[name] = L4(name, node, tmp_path / name)
        yield made


def by_hand(one: L4) -> None:
    """Under traffic. The service of IPv4 loses rows; that of IPv6 gets two back, where they do not belong."""
    one.do_pass()
    one.announced = True
    one.ipvsadm(*(f"-d -u 198.51.100.1:53 -r 192.0.2.{100 + number}:53" for number in (1, 5, 8)))
    where = [f"-u [2001:db8:5::1]:53 -r [2001:db8::{100 + number}]:53" for number in (4, 9)]
    one.ipvsadm(*(f"-d {words}" for words in where), *(f"-a {words} -i -w 100" for words in where))
    assert "rows out and in" in str(one.do_pass().plan)


def outage(one: L4) -> None:
    """Its kernel's table is gone, and its notes with it, as after a restart of the machine."""
    one.do_pass()
    one.do_pass(down=["s3", "s6"])
    one.node.run(["ipvsadm", "-C"], check=True)
    (one.run_directory / "ipvs.json").unlink()
    one.do_pass(down=["s3", "s6", "s7"])
    one.announced = True
    one.do_pass(down=["s3"])


def another_file(one: L4) -> None:
    """It began with seven servers in another order, lost one and got it back, and three more."""
    order = SERVERS[::-1]
    one.cluster = cluster(order[3:])
    one.do_pass(down=["s1"])
    one.cluster = cluster(order[4:])
    one.announced = True
    one.do_pass()
    one.cluster = cluster([*order[5:], *order[:5]])
    one.do_pass(down=["s2"])


@pytest.mark.parametrize("down", [["s3"], []], ids=["one is down", "all are up"])
def test_three_histories_end_in_one_table(nodes: Mapping[str, L4], down: list[str]) -> None:
    before = {}
    for one, history in zip(nodes.values(), (by_hand, outage, another_file), strict=True):
        history(one)
        before[one.name] = one.fingerprints()
        one.do_pass(down)
    assert len({tuple(sorted(marks.items())) for marks in before.values()}) > 1
    marks = [{key: one.fingerprints()[key] for key in VIPS.values()} for one in nodes.values()]
    assert marks[0] == marks[1] == marks[2]
    assert all(marks[0].values())
    for version in VIPS:
        said = [one.said(version) for one in nodes.values()]
        assert len(said[0]) == FLOWS
        assert said[0] == said[1] == said[2]
        decided = [one.decided(version) for one in nodes.values()]
        assert decided == said
        assert len(set(said[0].values())) == len(SERVERS) - len(down)
