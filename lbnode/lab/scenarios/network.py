"""A network as it can be seen from outside its nodes: who has which address, who carries and who uses what."""

from collections.abc import Sequence

from lbnode.chance import program
from lbnode.lab.build import Lab
from lbnode.lab.namespaces import Node
from lbnode.lab.programs import PATHS
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.sight import Routes, Service
from lbnode.lab.served import TCP, UDP, Served, served

PORT = 80


class Network:
    """A lab, with eyes on its routers and L4 nodes. To be closed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.routes = {name: Routes(lab.nodes[name]) for name in lab.topology.routers}
        machines = lab.topology.machines.values()
        self._names = {address: machine.name for machine in machines for address in machine.every_address}
        self._names |= {
            address: name for name in lab.topology.machines for address in sight.link_locals(self.node(name))
        }
        self.announcers = lab.topology.announcers
        self.l4, self.l7, self.backends = (lab.topology.with_role(role) for role in ("l4", "l7", "backend"))
        self.served = served(lab.topology.cluster)

    def node(self, name: str) -> Node:
        return self.lab.nodes[name]

    def address(self, name: str, version: int) -> str:
        return self.lab.topology.machines[name].addresses(version)[0]

    def any_address(self, name: str) -> str:
        """IPv4 where it has one."""
        return self.lab.topology.machines[name].every_address[0]

    def name_of(self, address: str) -> str:
        """The machine that has an address; the address itself when it is nobody's."""
        return self._names.get(address, address)

    @property
    def vips(self) -> list[str]:
        """Those of the web: what requests go to."""
        return [one.vip for one in self.served if one.protocol == TCP]

    @property
    def steady(self) -> list[str]:
        """Those of the web whose flows outlive what happens to L4 nodes and to other real servers: of scheduler mh."""
        return [one.vip for one in self.served if one.protocol == TCP and one.scheduler == "mh"]

    def vips_of(self, through: str) -> list[str]:
        """Those of the web that go through L7 nodes, or through backends alone."""
        return [one.vip for one in self.served if one.protocol == TCP and one.through == through]

    @property
    def echoes(self) -> list[Served]:
        """What goes by UDP, to echo servers."""
        return [one for one in self.served if one.protocol == UDP]

    @property
    def clients(self) -> list[str]:
        """Every client address of the first machine that has any, of both families."""
        return list(self.lab.topology.clients.every_address)

    def carriers(self, router: str, vip: str) -> set[str]:
        """The machines that a router sends a VIP's packets to: L4 nodes, for instance."""
        version = 6 if ":" in vip else 4
        hops = self.routes[router].gateways(version).get(vip, frozenset())
        return {self.name_of(hop) for hop in hops}

    def routed(self, name: str) -> bool:
        """Whether any router still sends anything to a machine that announces."""
        own = set(self.lab.topology.machines[name].every_address)
        return any(own & hops for table in self.routes.values() for v in (4, 6) for hops in table.gateways(v).values())

    def routed_fully(self, name: str) -> bool:
        """Whether every router sends every VIP's packets to a machine that announces, among others."""
        for table in self.routes.values():
            found = table.gateways(4) | table.gateways(6)
            for one in self.served:
                if self.address(name, one.version) not in found.get(one.vip, frozenset()):
                    return False
        return True

    def weights(self, l4: str) -> dict[Service, dict[str, int]]:
        return sight.weights(self.node(l4))

    def weights_of(self, real_server: str) -> set[int]:
        """All weights that any L4 node has for a real server, over all services."""
        own = set(self.lab.topology.machines[real_server].every_address)
        tables = [rows for services in self.all_weights().values() for rows in services.values()]
        return {weight for rows in tables for address, weight in rows.items() if address in own}

    def all_in_use(self, l7: Sequence[str] | None = None, l4: Sequence[str] | None = None) -> bool:
        """Whether every L4 node has every real server of every service at a weight above 0, and no others.

        `l7`, `l4`: the nodes meant, when not all.
        """
        wanted = self.real_servers(l7)
        for services in map(self.weights, self.l4 if l4 is None else l4):
            for service, addresses in wanted.items():
                if {real for real, weight in services.get(service, {}).items() if weight} != addresses:
                    return False
        return True

    def real_servers(self, l7: Sequence[str] | None = None) -> dict[Service, set[str]]:
        """The addresses that every L4 node sends a service's packets to; with these L7 nodes when not with all."""
        every = served(self.lab.topology.cluster, l7)
        return {(one.vip, one.port): {self.address(name, one.version) for name in one.servers} for one in every}

    def all_weights(self) -> dict[str, dict[Service, dict[str, int]]]:
        return {name: self.weights(name) for name in self.l4}

    def sent_on(self) -> int:
        """How many packets real servers have sent on, so far, to others that had the flow."""
        counted = [self.node(name).call(_counters) for name in (*self.l7, *self.backends)]
        return sum(reasons.get("forwarded", 0) + reasons.get("forwarded-again", 0) for reasons in counted)

    def all_routes(self) -> dict[str, dict[str, frozenset[str]]]:
        """Router -> VIP -> next hops."""
        return {name: table.gateways(4) | table.gateways(6) for name, table in self.routes.items()}

    def close(self) -> None:
        for routes in self.routes.values():
            routes.close()


def _counters() -> dict[str, int]:
    return program.counters(PATHS.bpf)
