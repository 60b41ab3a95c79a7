"""topology.yaml: what stands around the machines of a cluster file, and how all of it is joined.

The file names LANs, machines and routes once; the machines with a role come from the cluster file of the scale that is
asked for. `resolve` makes a `Topology` of both, with plain addresses and gateways.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from lbnode.config.model import Cluster, Model, Name
from lbnode.lab.errors import LabError
from lbnode.lab.topology import Hash, Machine, Network, Port, Route, Topology

Address = IPv4Address | IPv6Address
Standing = Mapping[str, tuple[Port, ...]]
DEFAULT: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


class ScaleEntry(Model):
    """One size of the lab: its cluster file, and how many client addresses of each family there are where machines
    with clients name none."""

    cluster: str
    clients: int = Field(1, ge=1, le=250)


class RouteEntry(Model):
    """`to`: `default`, or `vips`; `via`: machines on a LAN that the route's owner stands on too."""

    to: Literal["default", "vips"]
    via: tuple[Name, ...] = Field(min_length=1)


class PlaceEntry(Model):
    """Where a machine of the cluster file stands, with the addresses that it has there, and its routing daemon."""

    lan: str
    routes: tuple[RouteEntry, ...] = ()
    bird: str = ""
    frr: str = ""


class ClusterEntry(PlaceEntry):
    """The place of every machine of the cluster file; `nodes`: of those that stand elsewhere."""

    nodes: dict[Name, PlaceEntry] = Field(default_factory=dict)

    def place(self, name: str) -> PlaceEntry:
        return self.nodes.get(name, self)


class NodeEntry(Model):
    """A machine that is not in the cluster file.

    `neighbors`: machines whose routing daemons this one's speaks with; one side has to say it. `asn`: if left out, that
    of the cluster file's peer with an address of the machine, else the cluster's own.
    """

    lans: dict[str, tuple[Address, ...]]
    routes: tuple[RouteEntry, ...] = ()
    hash: Hash = "flow"
    bird: str = ""
    frr: str = ""
    asn: int = Field(0, ge=0, le=4294967295)
    neighbors: tuple[Name, ...] = ()
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

    def scale(self, name: str, folder: Path) -> ScaleEntry:
        """Raises LabError."""
        if name not in self.scales:
            raise LabError(f"cannot find scale {name}: {folder.name} has {', '.join(self.scales)}")
        return self.scales[name]


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
    entry = source.scale(scale, folder)
    nodes = {name: node for name, node in source.nodes.items() if node.scales is None or scale in node.scales}
    if not any(node.clients for node in nodes.values()):
        raise LabError(f"cannot use {folder.name}: no machine has clients")
    standing = {name: _ports(name, node, source, entry.clients) for name, node in nodes.items()}
    for name, member in cluster.nodes.items():
        own = tuple(address for address in (member.ipv4, member.ipv6) if address is not None)
        standing[name] = (_port(name, source.cluster.place(name).lan, own, source),)
    machines = {
        name: Machine(
            name,
            standing[name],
            _routes(name, node.routes, standing, source.vips),
            hash=node.hash,
            bird=node.bird,
            frr=node.frr,
            asn=node.asn,
            neighbors=_known(node.neighbors, source.nodes, f"connect {name} with"),
            clients=node.clients,
        )
        for name, node in nodes.items()
    }
    for name, member in cluster.nodes.items():
        place = source.cluster.place(name)
        routes = _routes(name, place.routes, standing, source.vips)
        announces = bool(cluster.announced_by(name))
        machines[name] = Machine(name, standing[name], routes, member.role, announces, bird=place.bird, frr=place.frr)
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


def _known(names: Iterable[str], known: Iterable[str], doing: str) -> tuple[str, ...]:
    """The names, when all of them are known. Raises LabError."""
    there = set(known)
    if unknown := [name for name in names if name not in there]:
        raise LabError(f"cannot {doing} {', '.join(unknown)}: there is no such machine")
    return tuple(names)


def _ports(name: str, node: NodeEntry, source: TopologyFile, clients: int) -> tuple[Port, ...]:
    return tuple(
        _many(lan, source.lans[lan], clients)
        if node.clients and not addresses and lan in source.lans
        else _port(name, lan, addresses, source)
        for lan, addresses in node.lans.items()
    )


def _many(lan: str, networks: tuple[Network, ...], count: int) -> Port:
    """The first addresses of a LAN, of each family."""
    return Port(lan, tuple(f"{net[i]}/{net.prefixlen}" for net in networks for i in range(1, count + 1)))


def _port(name: str, lan: str, addresses: tuple[Address, ...], source: TopologyFile) -> Port:
    if lan not in source.lans:
        raise LabError(f"cannot place {name}: there is no LAN {lan}, but {', '.join(source.lans)}")
    written = []
    for address in addresses:
        lengths = [net.prefixlen for net in source.lans[lan] if address in net]
        if not lengths:
            raise LabError(f"cannot place {name}: {address} is not in LAN {lan}")
        written.append(f"{address}/{lengths[0]}")
    return Port(lan, tuple(written))


def _routes(
    name: str, entries: tuple[RouteEntry, ...], standing: Standing, vips: tuple[Network, ...]
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
