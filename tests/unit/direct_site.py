"""A whole network with direct return (`onelan`), for tests that watch flows while real servers come, fail and go.

The probes are real, and a pass of an L4 node is that of `lbnode apply`. Several L4 nodes get the flows by ECMP.
"""

import asyncio
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from echo import DEADLINE_S, ECHO, HEALTH, Flow, Servers
from onelan import LAN, SWITCH, VIP, Announcer, become_server, joined, only

from lbnode.agent import tables
from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.health.monitor import probe_once
from lbnode.health.state import Health, Probe
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab import links
from lbnode.lab.links import Route
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.net.links import LinkDriver
from lbnode.net.policy import PolicyDriver, ended
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.plan import Plan
from lbnode.reconcile import Pass, ensure, plan, run
from lbnode.resources import ServiceKey
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs
from lbnode.roles.l4 import groundwork
from lbnode.roles.prober import Prober
from lbnode.templates import load

KEY = {4: ServiceKey(VIP[4], "tcp", 80), 6: ServiceKey(VIP[6], "tcp", 80)}
TEMPLATES = load()
FILE = """
bgp: {{local_asn: 65001, peers: {{r4: {{address: 192.0.2.1, asn: 65000}}, r6: {{address: "2001:db8::1", asn: 65000}}}}}}
nodes:
{nodes}
services:
  echo: {{vips: [198.51.100.1, "2001:db8:5::1"], pool: echo, through: backend{service}}}
pools:
  echo: {{port: {port}, check: {check}}}
ipvs: {{tcp_fin_timeout_s: 1{ipvs}}}
"""


def cluster(
    servers: Mapping[str, str], l4: int = 1, service: str = "", ipvs: str = "", check: str = "{type: tcp}"
) -> Cluster:
    return parse(text(servers, l4, service, ipvs, check), "cluster.yaml")


def text(servers: Mapping[str, str], l4: int = 1, service: str = "", ipvs: str = "", check: str = "{type: tcp}") -> str:
    """A cluster file. `servers`: by name (s1 to s9), what their nodes say beside their addresses; what other settings
    are given ends in the sections of that name. A check by http asks the health path."""
    lines = [f'  l4-{n}: {{role: l4, ipv4: 192.0.2.14{n}, ipv6: "2001:db8::14{n}"}}' for n in range(1, l4 + 1)]
    for name, more in servers.items():
        own = f'ipv4: 192.0.2.15{name[1]}, ipv6: "2001:db8::15{name[1]}"'
        lines.append(f"  {name}: {{role: backend, {own}{', ' * bool(more)}{more}}}")
    settings = [f", {more}" if more else "" for more in (service, ipvs)]
    port = HEALTH if "http" in check else ECHO
    return FILE.format(nodes="\n".join(lines), service=settings[0], ipvs=settings[1], check=check, port=port)


@dataclass
class Balancer:
    """An L4 node; `health` is what its probes have found."""

    name: str
    node: Node
    run_directory: Path
    health: dict[Probe, Health] = field(default_factory=dict)
    announcer: Announcer = field(default_factory=Announcer)

    def drivers(self) -> list[Any]:
        """Fresh ones, as after a start of the agent."""
        ipvs = IpvsDriver(Paths(run=self.run_directory))
        return [SysctlDriver(), LinkDriver(), self.announcer, PolicyDriver(ipvs.renew), ipvs]

    def wanted(self, cluster: Cluster, health: Mapping[Probe, Health] | None = None) -> Desired:
        """Without files and programs. To be called in the node."""
        known = self.health if health is None else health
        announced = self.announcer.vips
        inputs = Inputs(cluster, self.name, health=known, templates=TEMPLATES, ended=ended(), announced=announced)
        return only(desired("l4", inputs), self.drivers())

    def prepare(self, cluster: Cluster) -> None:
        """What probes need, as `lbnode apply` does it first."""
        wanted = only(groundwork(Inputs(cluster, self.name)), self.drivers())
        assert self.node.call(lambda: ensure(wanted, self.drivers())).errors == []

    def probe(self, cluster: Cluster, patience_s: float) -> None:
        wanted = Prober(cluster, self.name).probes()
        self.health.update(self.node.call(lambda: asyncio.run(probe_once(wanted, patience_s, fall=2))))

    def plan(self, cluster: Cluster) -> Plan:
        return self.node.call(lambda: plan(self.wanted(cluster), self.drivers()))

    def do_pass(self, cluster: Cluster, health: Mapping[Probe, Health] | None = None) -> Pass:
        done: Pass = self.node.call(lambda: run(self.wanted(cluster, health), self.drivers()))
        assert done.errors == []
        return done

    def weights(self, version: int) -> dict[str, int]:
        """What the kernel has, by address, oldest first."""
        name = str(KEY[version])
        found = self.node.call(lambda: tables.read((), name))
        return {row["address"]: row["weight"] for row in found[name]["rows"]}

    def setting(self, name: str) -> str:
        return self.node.call(lambda: Path("/proc/sys", *name.split(".")).read_text()).strip()


@dataclass
class Site:
    """`cluster` is the file on the L4 nodes: tests put another in its place. `machines` are there in any case."""

    cluster: Cluster
    machines: Cluster
    nodes: Mapping[str, Node]
    balancers: list[Balancer]
    servers: Servers
    patience_s: float = 0.4
    """Of a probe."""
    flows: list[Flow] = field(default_factory=list)

    @property
    def words(self) -> dict[str, str]:
        return self.servers.words

    @property
    def statuses(self) -> dict[str, int]:
        return self.servers.statuses

    @property
    def health(self) -> Mapping[Probe, Health]:
        return self.balancers[0].health

    @property
    def announced(self) -> frozenset[str]:
        return self.balancers[0].announcer.vips

    def probe(self) -> None:
        """Once round, by each L4 node."""
        for balancer in self.balancers:
            balancer.probe(self.cluster, self.patience_s)

    def do_pass(self) -> list[str]:
        """One pass of each L4 node; what the first one did. Nothing is left to do, also as an agent sees it that has
        just started, and all have the same tables."""
        done = [balancer.do_pass(self.cluster) for balancer in self.balancers]
        again = [balancer.plan(self.cluster) for balancer in self.balancers]
        assert not any(again), again
        self.check_tables()
        return [str(result.change).split("  # ")[0] for result in done[0].results]

    def probe_and_pass(self) -> list[str]:
        self.probe()
        return self.do_pass()

    def check_tables(self) -> None:
        """Every L4 node has the same Maglev tables, and those that are wanted."""
        if self.cluster.services["echo"].ipvs.scheduler != "mh":
            return
        told = [balancer.plan(self.cluster).tables_as_json() for balancer in self.balancers]
        found = [{name: states[name] for name in map(str, KEY.values())} for states in told]
        assert all(state["equal"] for state in found[0].values())
        assert found == found[:1] * len(found)

    def connect(self, version: int) -> Flow:
        def opened() -> socket.socket:
            # With a port before it connects: else IPv6 looks for the way without one, and ECMP has one way for all
            # (net/ipv6/tcp_ipv6.c, tcp_v6_connect).
            own = ("" if version == 4 else "::", 0)
            return socket.create_connection((VIP[version], 80), DEADLINE_S, own)

        flow = Flow(self.nodes["client"].call(opened))
        self.flows.append(flow)
        flow.server = flow.says()
        return flow

    def open(self, version: int, count: int) -> list[Flow]:
        return [self.connect(version) for _ in range(count)]

    def end(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            flow.end.close()

    def cable(self, name: str, up: bool) -> None:
        """The switch's port to a node."""
        links.state(self.nodes[SWITCH], f"{LAN}.{list(self.nodes).index(name)}", up)

    def address(self, server: str, version: int) -> str:
        return str(self.machines.nodes[server].address(version))

    def until_up(self, server: str, through_tunnel: bool = True) -> None:
        """Until the first L4 node's probes have found it up."""

        def up() -> bool:
            self.probe()
            return all(self.health[probe].up for probe in own)

        prober = Prober(self.cluster, self.balancers[0].name)
        own = [prober.agent(server, version) for version in (4, 6)]
        if through_tunnel:
            own += [probe for version in (4, 6) for probe in prober.health("echo", server, version)]
        wait_until(up, DEADLINE_S, f"probes to find {server} up")


def title(server: str, version: int) -> str:
    """Of a destination of the service, as plans have it, by the server's address."""
    return f"{KEY[version]} -> {server}"


@contextmanager
def built(machines: Cluster, first: Cluster, run_directory: Path) -> Iterator[Site]:
    """All of it: nodes as in `machines`, L4 nodes that know the file `first`, probed and passed once."""
    servers = Servers()
    with ExitStack() as stack:
        nodes = joined(stack, machines)
        balancers = [Balancer(name, nodes[name], run_directory / name) for name in machines.with_role("l4")]
        _route(nodes["client"], machines)
        for name in machines.with_role("backend"):
            become_server(nodes[name], name, machines)
            servers.listen(nodes[name], name)
        stack.enter_context(servers)
        site = Site(first, machines, nodes, balancers, servers)
        stack.callback(lambda: site.end(site.flows))
        for balancer in balancers:
            balancer.prepare(first)
        site.probe_and_pass()
        yield site


def _route(client: Node, machines: Cluster) -> None:
    """The way to the VIPs: over all L4 nodes, each flow its own way."""
    for version in (4, 6):
        hash_by_ports = Path(f"/proc/sys/net/ipv{version}/fib_multipath_hash_policy")
        client.call(partial(hash_by_ports.write_text, "1"))
        via = tuple(str(node.address(version)) for node in machines.with_role("l4").values())
        links.route(client, Route(f"{VIP[version]}/{32 if version == 4 else 128}", via))
