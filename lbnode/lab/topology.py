"""A lab's network as values: plain addresses and gateways, which `lbnode.lab.build` only has to make.

`lbnode.lab.layout` reads them from a topology.yaml and the cluster file that goes with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface
from pathlib import Path
from typing import Literal

from lbnode.config.model import Cluster

Network = IPv4Network | IPv6Network
Hash = Literal["flow", "ports", "source", "client"]


@dataclass(frozen=True)
class Port:
    """A machine's place on a LAN. Its interface has the LAN's name; addresses are written with their prefix length."""

    lan: str
    addresses: tuple[str, ...]

    def of(self, version: int) -> tuple[str, ...]:
        """The addresses of one family, without prefix lengths."""
        every = [ip_interface(text) for text in self.addresses]
        return tuple(str(item.ip) for item in every if item.version == version)


@dataclass(frozen=True)
class Route:
    """One prefix by one or more gateways of its family."""

    prefix: str
    gateways: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """One namespace to be.

    `role` is that of the cluster file, empty for what is not in it; `announces`: its role has BGP sessions of its own.
    What is not in the cluster file and stands on two LANs forwards. `bird` and `frr` name the template of the machine's
    BIRD or FRR, `asn` is the autonomous system of its routing daemon, `neighbors` are the machines this speaks with
    besides the announcing ones. `clients`: users live here, at all of its addresses.
    """

    name: str
    ports: tuple[Port, ...]
    routes: tuple[Route, ...] = ()
    role: str = ""
    announces: bool = False
    hash: Hash = "flow"
    bird: str = ""
    frr: str = ""
    asn: int = 0
    neighbors: tuple[str, ...] = ()
    clients: bool = False

    @property
    def forwards(self) -> bool:
        return len(self.ports) > 1 and not self.role

    def addresses(self, version: int) -> tuple[str, ...]:
        """Its own addresses of one family, without prefix lengths, in the order of the file."""
        return tuple(address for port in self.ports for address in port.of(version))

    @property
    def every_address(self) -> tuple[str, ...]:
        """Those of both families, IPv4 first."""
        return self.addresses(4) + self.addresses(6)


@dataclass(frozen=True)
class Topology:
    """One lab at one scale. `folder` holds the templates; `cluster_file` is what every node gets."""

    name: str
    title: str
    scale: str
    folder: Path
    cluster_file: Path
    cluster: Cluster
    vips: tuple[Network, ...]
    machines: Mapping[str, Machine]

    @property
    def lans(self) -> dict[str, tuple[str, ...]]:
        """LAN -> names of the machines on it."""
        members: dict[str, tuple[str, ...]] = {}
        for machine in self.machines.values():
            for port in machine.ports:
                members[port.lan] = (*members.get(port.lan, ()), machine.name)
        return members

    def with_role(self, role: str) -> tuple[str, ...]:
        return tuple(name for name, machine in self.machines.items() if machine.role == role)

    @property
    def announcers(self) -> tuple[str, ...]:
        """The machines of the cluster file that announce VIPs."""
        return tuple(name for name, machine in self.machines.items() if machine.announces)

    @property
    def routers(self) -> tuple[str, ...]:
        """The machines whose kernels hold the VIPs' routes: they have a routing daemon and forward."""
        return tuple(
            name for name, machine in self.machines.items() if (machine.bird or machine.frr) and machine.forwards
        )

    @property
    def users(self) -> tuple[Machine, ...]:
        """The machines where clients live."""
        return tuple(machine for machine in self.machines.values() if machine.clients)

    @property
    def clients(self) -> Machine:
        """The first of them; most labs have one, with many addresses."""
        return self.users[0]
