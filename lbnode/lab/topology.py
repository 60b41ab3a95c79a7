"""A lab's network as values: topology.yaml says what stands around the machines of a cluster file and how it is joined.

The file names LANs, machines and routes once; the machines with a role come from the cluster file of the scale that is
asked for. What comes out holds plain addresses and gateways, so that `lbnode.lab.build` only has to make them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from lbnode.config.model import Cluster, Model, Name
from lbnode.lab.errors import LabError

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Hash = Literal["flow", "ports", "source"]
DEFAULT: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


class ScaleEntry(Model):
    """One size of the lab: its cluster file and how many client addresses of each family there are."""

    cluster: str
    clients: int = Field(ge=1, le=250)


class RouteEntry(Model):
    """`to`: `default`, or `vips`; `via`: machines on a LAN that the route's owner stands on too."""

    to: Literal["default", "vips"]
    via: tuple[Name, ...] = Field(min_length=1)


class ClusterEntry(Model):
    """The LAN and the routes of every machine in the cluster file."""

    lan: str
    routes: tuple[RouteEntry, ...] = ()


class NodeEntry(Model):
    """A machine that is not in the cluster file."""

    lans: dict[str, tuple[Address, ...]]
    routes: tuple[RouteEntry, ...] = ()
    hash: Hash = "flow"
    bird: str = ""
    clients: bool = False
    scales: tuple[str, ...] | None = None


class TopologyFile(Model):
    """topology.yaml as it is written."""

    title: str
    scales: dict[str, ScaleEntry]
    lans: dict[str, tuple[Network, ...]]
    vips: tuple[Network, ...]
    cluster: ClusterEntry
    nodes: dict[Name, NodeEntry]


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
    """One namespace to be. `role` is empty for what is not in the cluster file; those with two LANs forward."""

    name: str
    ports: tuple[Port, ...]
    routes: tuple[Route, ...] = ()
    role: str = ""
    hash: Hash = "flow"
    bird: str = ""
    clients: bool = False

    @property
    def forwards(self) -> bool:
        return len(self.ports) > 1

    def addresses(self, version: int) -> tuple[str, ...]:
        """Its own addresses of one family, without prefix lengths, in the order of the file."""
        return tuple(address for port in self.ports for address in port.of(version))


@dataclass(frozen=True)
class Topology:
    """One lab at one scale. `folder` holds the files that `bird` names; `cluster_file` is what every node gets."""

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
    def routers(self) -> tuple[str, ...]:
        """The machines whose kernels hold the VIPs' routes: they run BIRD and forward."""
        return tuple(name for name, machine in self.machines.items() if machine.bird and machine.forwards)

    @property
    def clients(self) -> Machine:
        return next(machine for machine in self.machines.values() if machine.clients)


def read(folder: Path) -> TopologyFile:
    """Reads `folder`/topology.yaml. Raises LabError that lists every mistake."""
    path = folder / "topology.yaml"
    try:
        return TopologyFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise LabError(f"cannot use {path}: " + "; ".join(lines)) from error


def resolve(source: TopologyFile, scale: str, cluster: Cluster, folder: Path) -> Topology:
    """The lab at one scale. Raises LabError on names and addresses that fit nowhere."""
    entry = source.scales.get(scale)
    if entry is None:
        raise LabError(f"cannot find scale {scale}: {folder.name} has {', '.join(source.scales)}")
    nodes = {name: node for name, node in source.nodes.items() if node.scales is None or scale in node.scales}
    standing = {name: _ports(name, node, source, entry.clients) for name, node in nodes.items()}
    for name, member in cluster.nodes.items():
        own = tuple(address for address in (member.ipv4, member.ipv6) if address is not None)
        standing[name] = (_port(name, source.cluster.lan, own, source),)
    machines = {
        name: Machine(
            name,
            standing[name],
            _routes(name, node.routes, standing, source.vips),
            "",
            node.hash,
            node.bird,
            node.clients,
        )
        for name, node in nodes.items()
    }
    for name, member in cluster.nodes.items():
        routes = _routes(name, source.cluster.routes, standing, source.vips)
        machines[name] = Machine(name, standing[name], routes, member.role)
    return Topology(
        folder.name,
        source.title,
        scale,
        folder,
        folder / entry.cluster,
        cluster,
        source.vips,
        MappingProxyType(machines),
    )


def _ports(name: str, node: NodeEntry, source: TopologyFile, clients: int) -> tuple[Port, ...]:
    ports = tuple(_port(name, lan, addresses, source) for lan, addresses in node.lans.items())
    if not node.clients:
        return ports
    return tuple(
        Port(
            port.lan, tuple(f"{net[i]}/{net.prefixlen}" for net in source.lans[port.lan] for i in range(1, clients + 1))
        )
        for port in ports
    )


def _port(name: str, lan: str, addresses: tuple[Address, ...], source: TopologyFile) -> Port:
    written = []
    for address in addresses:
        lengths = [net.prefixlen for net in source.lans.get(lan, ()) if address in net]
        if not lengths:
            raise LabError(f"cannot place {name}: {address} is not in LAN {lan}")
        written.append(f"{address}/{lengths[0]}")
    return Port(lan, tuple(written))


def _routes(
    name: str, entries: tuple[RouteEntry, ...], standing: Mapping[str, tuple[Port, ...]], vips: tuple[Network, ...]
) -> tuple[Route, ...]:
    """Every prefix of the entries by the gateways of its family that share a LAN with the machine."""
    mine = [ip_interface(text) for port in standing[name] for text in port.addresses]
    routes = []
    for entry in entries:
        reachable = []
        for via in entry.via:
            theirs = [ip_interface(text).ip for port in standing.get(via, ()) for text in port.addresses]
            near = [ip for ip in theirs if any(ip in own.network for own in mine)]
            if not near:
                raise LabError(f"cannot route {entry.to} from {name} by {via}: they share no LAN")
            reachable += near
        for prefix in DEFAULT if entry.to == "default" else vips:
            gateways = tuple(str(ip) for ip in reachable if ip.version == prefix.version)
            if gateways:
                routes.append(Route(str(prefix), gateways))
    return tuple(routes)
