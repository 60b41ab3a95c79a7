"""A real server fails under traffic: its flows end by a RST from the VIP, the others do not notice, and it comes back.

    client ---+--- switch ---+--- l4   (the VIPs, IPVS, ipip and ip6tnl to the real servers)
              |              +--- s1, s2, s3   (decapsulate, serve, answer the client directly)

The nodes are what the roles want them to be, the probes are real, and a pass of an L4 node is that of `lbnode apply`.
"""

import asyncio
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.health.monitor import probe_once
from lbnode.health.state import Health, Probe
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab import links
from lbnode.lab.links import Port, Route
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.net.links import LinkDriver
from lbnode.net.policy import PolicyDriver, ended
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.reconcile import Pass, ensure, plan, run
from lbnode.resources import Row
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs
from lbnode.roles.l4 import groundwork
from lbnode.roles.prober import Prober
from lbnode.templates import load

pytestmark = pytest.mark.kernel

TEXT = """
bgp: {local_asn: 65001, peers: {r4: {address: 192.0.2.1, asn: 65000}, r6: {address: "2001:db8::1", asn: 65000}}}
nodes:
  l4: {role: l4, ipv4: 192.0.2.141, ipv6: "2001:db8::141"}
  s1: {role: backend, ipv4: 192.0.2.151, ipv6: "2001:db8::151"}
  s2: {role: backend, ipv4: 192.0.2.152, ipv6: "2001:db8::152"}
  s3: {role: backend, ipv4: 192.0.2.153, ipv6: "2001:db8::153"}
services:
  echo: {vips: [198.51.100.1, "2001:db8:5::1"], pool: echo, through: backend}
pools:
  echo: {check: {type: tcp}}
"""
VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
SERVERS = ("s1", "s2", "s3")
FLOWS = 60
DEADLINE_S = 20.0
TEMPLATES = load()
PROBER = Prober(parse(TEXT), "l4")


def serve(listener: socket.socket, name: str, stop: threading.Event) -> None:
    """Says its name for every line; in a thread, until told to stop."""
    clients = [listener]
    while not stop.is_set():
        for ready in select.select(clients, [], [], 0.1)[0]:
            if ready is listener:
                clients.append(listener.accept()[0])
                continue
            data = b""
            with suppress(OSError):
                data = ready.recv(100)
                ready.sendall(name.encode() * bool(data))
            if not data:
                clients.remove(ready)
                ready.close()
    for one in clients:
        one.close()


def tell(listener: socket.socket, words: Mapping[str, str], name: str, stop: threading.Event) -> None:
    """The agent-check of a server; in a thread, until told to stop."""
    while not stop.is_set():
        if select.select([listener], [], [], 0.1)[0]:
            client, _ = listener.accept()
            with client, suppress(OSError):
                client.sendall(words.get(name, "ready").encode() + b"\n")
    listener.close()


@dataclass
class Flow:
    """One connection of the client, and the server that holds it."""

    end: socket.socket
    server: str = ""

    def says(self, patience_s: float = DEADLINE_S) -> str:
        """What a line brings back: the server's name, `reset`, or `nothing` for so long."""
        self.end.settimeout(patience_s)
        try:
            self.end.sendall(b"?")
            return self.end.recv(10).decode()
        except TimeoutError:
            return "nothing"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"


@dataclass
class Site:
    """The whole network; `words` is what servers' agent-checks say, `health` what the L4 node's probes have found."""

    cluster: Cluster
    nodes: Mapping[str, Node]
    run_directory: Path
    words: dict[str, str]
    health: dict[Probe, Health] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)

    def drivers(self) -> list[Any]:
        """Fresh ones, as after a start of the agent."""
        ipvs = IpvsDriver(Paths(run=self.run_directory))
        return [SysctlDriver(), LinkDriver(), PolicyDriver(ipvs.renew), ipvs]

    def wanted(self) -> Desired:
        """Without announcements and files, which need programs. To be called in the L4 node."""
        inputs = Inputs(self.cluster, "l4", health=self.health, templates=TEMPLATES, ended=ended())
        return self.only(desired("l4", inputs), self.drivers())

    def prepare(self) -> None:
        """What probes need, as `lbnode apply` does it first."""
        wanted = groundwork(Inputs(self.cluster, "l4"))
        assert self.nodes["l4"].call(lambda: ensure(wanted, self.drivers())).errors == []

    @staticmethod
    def only(whole: Desired, drivers: list[Any]) -> Desired:
        kinds: tuple[type[Row], ...] = tuple(kind for driver in drivers for kind in driver.kinds)
        return Desired(tuple(row for row in whole.rows if isinstance(row, kinds)), whole.reasons)

    def probe(self) -> None:
        """Once round, by the L4 node."""
        wanted = Prober(self.cluster, "l4").probes()
        self.health.update(self.nodes["l4"].call(lambda: asyncio.run(probe_once(wanted, 0.4, fall=2))))

    def do_pass(self) -> list[str]:
        """One pass; what it did. Nothing is left to do, also as an agent sees it that has just started."""
        done: Pass = self.nodes["l4"].call(lambda: run(self.wanted(), self.drivers()))
        assert done.errors == []
        again = self.nodes["l4"].call(lambda: plan(self.wanted(), self.drivers()))
        assert not again, again
        return [str(result.change).split("  # ")[0] for result in done.results]

    def probe_and_pass(self) -> list[str]:
        self.probe()
        return self.do_pass()

    def connect(self, version: int) -> Flow:
        def opened() -> socket.socket:
            return socket.create_connection((VIP[version], 80), timeout=DEADLINE_S)

        flow = Flow(self.nodes["client"].call(opened))
        self.flows.append(flow)
        flow.server = flow.says()
        return flow

    def open(self, version: int, count: int = FLOWS) -> list[Flow]:
        """Some flows, with at least one for each server in service."""
        return [self.connect(version) for _ in range(count)]

    def cable(self, server: str, up: bool) -> None:
        """The switch's port to a server."""
        links.state(self.nodes["switch"], f"lan.{list(self.nodes).index(server)}", up)

    def close(self) -> None:
        for flow in self.flows:
            flow.end.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    cluster = parse(TEXT)
    stop = threading.Event()
    words: dict[str, str] = {}
    with ExitStack() as stack:
        names = ("client", *cluster.nodes, "switch")
        nodes = {name: stack.enter_context(Node(name, private=False)) for name in names}
        hosts = {name: (f"{node.ipv4}/24", f"{node.ipv6}/64") for name, node in cluster.nodes.items()}
        hosts["client"] = ("192.0.2.9/24", "2001:db8::9/64")
        links.lan(nodes["switch"], "lan", [Port(nodes[name], "eth0", hosts[name]) for name in names[:-1]])
        routes = [Route(f"{VIP[4]}/32", ("192.0.2.141",)), Route(f"{VIP[6]}/128", ("2001:db8::141",))]
        links.route(nodes["client"], *routes)
        for name in SERVERS:
            start_server(nodes[name], name, cluster, stack, stop, words)
        stack.callback(stop.set)
        found = Site(cluster, nodes, tmp_path, words)
        stack.callback(found.close)
        found.prepare()
        found.probe_and_pass()
        yield found


def start_server(node: Node, name: str, cluster: Cluster, stack: ExitStack, *told: Any) -> None:
    """`told`: the event that ends it, and what the agent-checks say."""
    stop, words = told
    drivers: list[Any] = [SysctlDriver(), LinkDriver()]
    wanted = Site.only(desired("backend", Inputs(cluster, name)), drivers)
    assert node.call(lambda: run(wanted, drivers)).errors == []
    for family, any_address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):

        def listen(port: int, family: socket.AddressFamily = family, address: str = any_address) -> socket.socket:
            return socket.create_server((address, port), family=family, backlog=256)

        threads = (
            threading.Thread(target=serve, args=(node.call(lambda: listen(80)), name, stop)),
            threading.Thread(target=tell, args=(node.call(lambda: listen(5555)), words, name, stop)),
        )
        for thread in threads:
            thread.start()
            stack.callback(thread.join)


def answers(flows: list[Flow]) -> dict[str, int]:
    """How many flows got the answer of their own server, how many each of the rest."""
    counts: dict[str, int] = {}
    for flow in flows:
        found = flow.says()
        word = "own" if found == flow.server else found
        counts[word] = counts.get(word, 0) + 1
    return counts


def address(site: Site, server: str, version: int) -> str:
    return str(site.cluster.nodes[server].address(version))


def until_up(site: Site, server: str, through_tunnel: bool = True) -> None:
    def up() -> bool:
        site.probe()
        return all(site.health[probe].up for probe in own)

    own = [PROBER.agent(server, version) for version in (4, 6)]
    if through_tunnel:
        own += [probe for version in (4, 6) for probe in PROBER.health("echo", server, version)]
    wait_until(up, DEADLINE_S, f"probes to find {server} up")


def of(flows: list[Flow], server: str) -> list[Flow]:
    return [flow for flow in flows if flow.server == server]


@pytest.mark.parametrize("version", [4, 6])
def test_the_flows_of_a_silent_server_end_and_no_others(site: Site, version: int) -> None:
    flows = site.open(version)
    assert {flow.server for flow in flows} == set(SERVERS)
    dead, others = of(flows, "s1"), [flow for flow in flows if flow.server != "s1"]
    waiting, idle, active = dead[0], dead[1:3], dead[3:]
    site.cable("s1", up=False)
    assert waiting.says(patience_s=0.5) == "nothing"

    done = site.probe_and_pass()
    host = address(site, "s1", version)
    route = f"+ local-route {host} source {address(site, 'l4', version)}"
    weight = f"~ destination {'[' if version == 6 else ''}{VIP[version]}{']' if version == 6 else ''}:80/tcp -> {host}"
    assert done.index(route) < done.index(f"{weight} weight 100 -> 0")
    assert answers(active) == {"reset": len(active)}
    wait_until(lambda: waiting.says() == "reset", DEADLINE_S, "the next retransmission of a flow that has waited")
    assert answers(others) == {"own": len(others)}
    assert {flow.server for flow in site.open(version, 30)} == {"s2", "s3"}
    assert answers(idle) == {"reset": 2}

    # What is not a probe meets the L4 node itself: without the mark the server would never be seen to come back.
    def unmarked() -> None:
        socket.create_connection((host, 80), timeout=1).close()

    assert site.probe_and_pass() == []
    site.cable("s1", up=True)
    until_up(site, "s1", through_tunnel=False)
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        site.nodes["l4"].call(unmarked)
    assert f"- local-route {host}" in site.do_pass()
    assert {flow.server for flow in site.open(version, 30)} == {"s2", "s3"}
    until_up(site, "s1")
    assert f"{weight} weight 0 -> 100" in site.do_pass()
    assert {flow.server for flow in site.open(version)} == set(SERVERS)
    assert answers(others) == {"own": len(others)}


@pytest.mark.parametrize("version", [4, 6])
def test_a_drained_server_keeps_its_flows_until_it_is_gone(site: Site, version: int) -> None:
    """The weight is 0 already when it fails: IPVS must look up its route all the same."""
    flows = site.open(version)
    site.words["s1"] = "drain"
    site.probe()
    assert not [line for line in site.do_pass() if "local-route" in line]
    assert answers(flows) == {"own": FLOWS}
    site.cable("s1", up=False)
    assert len(site.probe_and_pass()) == 2
    dead, others = of(flows, "s1"), [flow for flow in flows if flow.server != "s1"]
    assert answers(dead[1:]) == {"reset": len(dead) - 1}
    site.cable("s1", up=True)
    until_up(site, "s1", through_tunnel=False)
    assert sorted(site.do_pass()) == [f"- local-route {address(site, 's1', v)}" for v in (4, 6)]
    wait_until(lambda: dead[0].says() == "s1", DEADLINE_S, "an idle flow of a server that drains and is back")
    assert answers(others) == {"own": len(others)}


def test_a_server_that_people_fail_and_take_back(site: Site) -> None:
    """A false alarm: it lives, so its idle flows survive, and those that spoke meanwhile are reset."""
    flows = {version: site.open(version) for version in (4, 6)}
    mine = {version: of(flows[version], "s2") for version in (4, 6)}
    site.words["s2"] = "down # by mistake"
    assert len([line for line in site.probe_and_pass() if line.startswith("+ local-route")]) == 2
    for version in (4, 6):
        assert answers(mine[version][:3]) == {"reset": 3}
    site.words["s2"] = "ready"
    until_up(site, "s2", through_tunnel=False)
    site.do_pass()
    until_up(site, "s2")
    site.do_pass()
    for version in (4, 6):
        left = [flow for flow in flows[version] if flow not in mine[version][:3]]
        assert answers(left) == {"own": len(left)}


def test_nobody_is_failed_when_all_are(site: Site) -> None:
    """The L4 node's own cable, say: what cannot be told apart from the end of all servers ends no flow."""
    flows = site.open(4)
    site.cable("l4", up=False)
    site.probe()
    assert not any(health.up for health in site.health.values())
    assert not [line for line in site.do_pass() if "local-route" in line]
    site.cable("l4", up=True)
    for server in SERVERS:
        until_up(site, server)
    site.do_pass()
    wait_until(lambda: answers(flows) == {"own": FLOWS}, DEADLINE_S, "every flow to go on")
