"""The network of the measurements (`onelan`): two L4 nodes of which one has the traffic, servers s1 to s8, and s9 which
is to be added.

A pass of an L4 node is that of `lbnode apply`; what probes find is said by the tests, because starting to probe is
measured elsewhere.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onelan import SWITCH, VIP, Announcer, become_server, joined, only
from traffic import PORT, Traffic, serve

from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.health.state import Health, Probe
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab import links
from lbnode.lab.links import Route
from lbnode.lab.namespaces import Node
from lbnode.maintenance.state import parse as state
from lbnode.net.links import LinkDriver
from lbnode.net.policy import PolicyDriver, ended
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.reconcile import run
from lbnode.resources import DestinationOrder, ServiceKey
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.prober import Prober
from lbnode.templates import load

KEYS = {version: ServiceKey(vip, "tcp", PORT) for version, vip in VIP.items()}
L4 = ("l4a", "l4b")
SERVERS = tuple(f"s{number}" for number in range(1, 10))
AT_FIRST = SERVERS[:8]
TEMPLATES = load()
HEAD = """
bgp: {local_asn: 65001, peers: {r4: {address: 192.0.2.1, asn: 65000}, r6: {address: "2001:db8::1", asn: 65000}}}
services:
  echo: {vips: [198.51.100.1, "2001:db8:5::1"], pool: echo, through: backend}
pools:
  echo: {check: {type: tcp}}
nodes:
  l4a: {role: l4, ipv4: 192.0.2.141, ipv6: "2001:db8::141"}
  l4b: {role: l4, ipv4: 192.0.2.142, ipv6: "2001:db8::142"}
"""


def cluster_of(servers: Sequence[str]) -> Cluster:
    """The cluster file with these real servers, in this order."""
    lines = [
        f'  {name}: {{role: backend, ipv4: 192.0.2.15{name[1:]}, ipv6: "2001:db8::15{name[1:]}"}}\n' for name in servers
    ]
    return parse(HEAD + "".join(lines))


@dataclass
class Network:
    """`cluster` and `health` are what the next pass goes by; `health` and `speakers` are by L4 node."""

    nodes: dict[str, Node]
    directory: Path
    traffic: Traffic
    cluster: Cluster = field(default_factory=lambda: cluster_of(AT_FIRST))
    health: dict[str, dict[Probe, Health]] = field(default_factory=lambda: {name: {} for name in L4})
    speakers: dict[str, Announcer] = field(default_factory=lambda: {name: Announcer() for name in L4})

    def drivers(self, name: str) -> list[Any]:
        """Fresh ones, as after a start of the agent."""
        ipvs = self.ipvs(name)
        return [SysctlDriver(), LinkDriver(), PolicyDriver(ipvs.renew), ipvs, self.speakers[name]]

    def ipvs(self, name: str) -> IpvsDriver:
        return IpvsDriver(Paths(run=self.directory / name))

    def do_pass(self, name: str, cluster: Cluster | None = None, force: bool = False) -> list[str]:
        """One pass of an L4 node; what it did."""
        drivers = self.drivers(name)

        def inside() -> Any:
            inputs = Inputs(cluster or self.cluster, name, health=self.health[name], templates=TEMPLATES, ended=ended())
            return run(only(desired("l4", inputs), drivers), drivers, force=force)

        done = self.nodes[name].call(inside)
        assert done.errors == []
        return [str(result.change).split("  # ")[0] for result in done.results]

    def pass_everywhere(self) -> dict[str, list[str]]:
        return {name: self.do_pass(name) for name in L4}

    def orders(self, name: str) -> dict[int, tuple[str, ...]]:
        """Each VIP's destinations as the kernel has them, oldest first."""
        rows = self.nodes[name].call(lambda: self.ipvs(name).observe([])).rows
        found = {row.service: row.names for row in rows if isinstance(row, DestinationOrder)}
        return {version: found[key] for version, key in KEYS.items()}

    def canonical(self) -> dict[int, tuple[str, ...]]:
        servers = self.cluster.with_role("backend").values()
        return {version: tuple(str(server.address(version)) for server in servers) for version in VIP}

    def found_gone(self, server: str) -> None:
        """Probes say so, on every L4 node: nothing comes back from it."""
        self._found(server, Health(False, "no answer", silent=True), Health(False, "no answer", silent=True))

    def told(self, server: str, line: str) -> None:
        """It answers, and this is what its agent-check says."""
        self._found(server, Health(True), Health(True, admin=state(line)))

    def _found(self, server: str, answers: Health, agent: Health) -> None:
        for name in L4:
            prober = Prober(self.cluster, name)
            for version in (4, 6):
                self.health[name].update(dict.fromkeys(prober.health("echo", server, version), answers))
                self.health[name][prober.agent(server, version)] = agent

    def cut(self, server: str) -> None:
        """From now on the server hears nothing, silently: its neighbours still find it (ARP, neighbour discovery)."""
        self.nodes[server].run(["nft", "-f", "-"], input=SILENCE, check=True)

    def mend(self, server: str) -> None:
        self.nodes[server].run(["nft", "delete", "table", "inet", "silence"], check=True)


SILENCE = """
table inet silence {
    chain everything {
        type filter hook prerouting priority -400;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        drop
    }
}
"""


@contextmanager
def built(directory: Path) -> Iterator[Network]:
    """With the L4 nodes programmed and everything listening."""
    everyone = cluster_of(SERVERS)
    with ExitStack() as stack:
        nodes = joined(stack, everyone)
        links.route(
            nodes["client"], Route(f"{VIP[4]}/32", ("192.0.2.141",)), Route(f"{VIP[6]}/128", ("2001:db8::141",))
        )
        listeners = []
        for name in SERVERS:
            become_server(nodes[name], name, everyone)
            listeners += [(name, nodes[name].call(lambda family=family: listen(family))) for family in FAMILIES]
        nodes[SWITCH].fork(lambda: serve(listeners), directory / "servers.log")
        for _, listener in listeners:
            listener.close()
        traffic = Traffic(nodes["client"], VIP, directory / "clients.log")
        stack.callback(traffic.close)
        network = Network(nodes, directory, traffic)
        network.pass_everywhere()
        yield network


FAMILIES = (socket.AF_INET, socket.AF_INET6)


def listen(family: socket.AddressFamily) -> socket.socket:
    return socket.create_server(("", PORT), family=family, backlog=512)
