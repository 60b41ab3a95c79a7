"""What is to be seen of a topology: blocks of machines in layers, the LANs that join them, and the services. PURE.

The layers are the distance from the clients. Machines of one kind that stand on one and the same LAN share a block,
with a card for each; a machine between LANs is a block of its own and has its addresses where the LANs meet it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from lbnode.config.model import Cluster, Service
from lbnode.lab import dns, routing
from lbnode.lab.topology import Machine, Port, Topology

SHOWN = 3
"""So many names are written out; of more, the first, the last and their number."""
TITLES = {
    "users": ("users", "user"),
    "router": ("routers", "router"),
    "l4": ("L4 nodes", "L4"),
    "l7": ("L7 nodes", "L7"),
    "backend": ("backends", "backend"),
    "dns": ("DNS servers", "DNS server"),
    "speaker": ("route reflectors", "route reflector"),
    "other": ("machines", "machine"),
}
"""Kind of machine -> what many and one of them are called."""
WORK = {"l4": "IPVS, consistent hashing", "l7": "HAProxy", "dns": "gdnsd", "router": "ECMP"}


@dataclass(frozen=True)
class Card:
    """One machine in a block of several: its name, and its addresses."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One or more machines. `depth` is the layer, 0 for clients; `notes` are lines under the title."""

    key: str
    kind: str
    depth: int
    title: str
    notes: tuple[str, ...]
    cards: tuple[Card, ...] = ()


@dataclass(frozen=True)
class End:
    """Where a LAN meets a block; `text` is the address there, empty when the block says it itself."""

    block: str
    text: str


@dataclass(frozen=True)
class Wire:
    """One LAN that joins blocks."""

    name: str
    prefixes: tuple[str, ...]
    ends: tuple[End, ...]


@dataclass(frozen=True)
class Figure:
    """Everything; `tables` are rows of cells, the first row a heading."""

    title: str
    blocks: tuple[Block, ...]
    wires: tuple[Wire, ...]
    tables: tuple[tuple[tuple[str, ...], ...], ...]


def figure(topology: Topology) -> Figure:
    """What there is to see."""
    depths = _depths(topology)
    groups: dict[tuple[str, ...], list[Machine]] = {}
    for machine in topology.machines.values():
        kind = _kind(topology, machine)
        alone = (
            (machine.name,) if len(machine.ports) != 1 else (machine.ports[0].lan, kind, _speakers(topology, machine))
        )
        groups.setdefault(alone, []).append(machine)
    blocks: list[Block] = []
    block_of: dict[str, str] = {}
    for machines in groups.values():
        block = _block(topology, machines, depths[machines[0].name])
        blocks.append(block)
        block_of |= {machine.name: block.key for machine in machines}
    wires = [_wire(topology, lan, members, block_of) for lan, members in topology.lans.items() if len(members) > 1]
    tables = [table for table in (_services(topology.cluster), _names(topology.cluster)) if len(table) > 1]
    scale = "" if topology.scale == "small" else f" (scale {topology.scale})"
    return Figure(f"{topology.title}{scale}", tuple(blocks), tuple(wires), tuple(tables))


def _depths(topology: Topology) -> dict[str, int]:
    """How many LANs lie between clients and each machine; what they cannot reach comes last."""
    found = {machine.name: 0 for machine in topology.users}
    newest = list(found)
    while newest:
        near = [other for members in topology.lans.values() if set(newest) & set(members) for other in members]
        depth = found[newest[0]] + 1
        newest = [name for name in dict.fromkeys(near) if name not in found]
        found |= dict.fromkeys(newest, depth)
    last = max(found.values()) + 1
    return {name: found.get(name, last) for name in topology.machines}


def _kind(topology: Topology, machine: Machine) -> str:
    if machine.clients:
        return "users"
    if machine.role:
        return machine.role
    if machine.name in dns.servers(topology):
        return "dns"
    if machine.forwards:
        return "router"
    return "speaker" if _speakers(topology, machine) else "other"


def _speakers(topology: Topology, machine: Machine) -> str:
    """What speaks BGP on a machine."""
    own = machine.announces and topology.cluster.bgp.speaker == "exabgp"
    return ", ".join(name for name, there in (("ExaBGP", own), ("BIRD", machine.bird), ("FRR", machine.frr)) if there)


def _block(topology: Topology, machines: Sequence[Machine], depth: int) -> Block:
    first, kind = machines[0], _kind(topology, machines[0])
    many, one = TITLES[kind]
    if len(machines) > 1:
        notes = [WORK.get(kind, ""), *_speaks(topology, machines)]
        cards = tuple(Card(machine.name, _own(machine)) for machine in machines)
        return Block(first.name, kind, depth, many, tuple(filter(None, notes)), cards)
    notes = [_words(one if kind != "users" else "", WORK.get(kind, "")), *_speaks(topology, machines)]
    if len(first.ports) == 1:
        notes += _own(first)
    return Block(first.name, kind, depth, first.name, tuple(filter(None, notes)))


def _words(*words: str) -> str:
    return ": ".join(filter(None, words))


def _speaks(topology: Topology, machines: Sequence[Machine]) -> list[str]:
    """Speaker and autonomous system, and whom it has sessions with; nothing for machines without BGP."""
    speakers = _speakers(topology, machines[0])
    if not speakers:
        return []
    names = {machine.name for machine in machines}
    numbers = dict.fromkeys(str(_asn(topology, machine)) for machine in machines)
    others = [other for one, other in _sessions(topology) if one in names]
    with_whom = [f"BGP with {shortened(list(dict.fromkeys(others)))}"] if others else []
    return [f"{speakers}, AS {shortened(list(numbers))}", *with_whom]


def _sessions(topology: Topology) -> list[tuple[str, str]]:
    """Both ends of each session, in both directions, in the order of the files."""
    found = {
        frozenset((name, session.name)) for name in topology.machines for session in routing.sessions(topology, name)
    }
    return [
        (one, other) for one in topology.machines for other in topology.machines if frozenset((one, other)) in found
    ]


def _asn(topology: Topology, machine: Machine) -> int:
    return topology.cluster.bgp.local_asn if machine.announces else routing.own_asn(topology, machine)


def shortened(names: Sequence[str]) -> str:
    """All of a few names; of more, the first and the last."""
    return ", ".join(names) if len(names) <= SHOWN else f"{names[0]} … {names[-1]} ({len(names)})"


def _own(machine: Machine) -> tuple[str, ...]:
    """The addresses of a machine with one port, a line for each family."""
    lines = []
    for version in (4, 6):
        found = [one for one in map(ip_interface, machine.ports[0].addresses) if one.version == version]
        texts = [str(one.ip) if version == 4 and not index else host_part(one) for index, one in enumerate(found)]
        if len(texts) > SHOWN:
            texts = [f"{texts[0]} … {texts[-1]}"]
        lines += [", ".join(texts)] if texts else []
    return tuple(lines)


def host_part(address: IPv4Interface | IPv6Interface) -> str:
    """What tells an address from others in its LAN, whose prefix is written elsewhere: `.141`, `::141`."""
    if isinstance(address, IPv4Interface):
        return f".{address.packed[3]}" if 24 <= address.network.prefixlen < 32 else str(address.ip)
    if address.network.prefixlen > 64:
        return str(address.ip)
    return str(IPv6Address(int(address.ip) - int(address.network.network_address)))


def _wire(topology: Topology, lan: str, members: Iterable[str], block_of: dict[str, str]) -> Wire:
    """Blocks of several machines, and of one with one port, say their addresses themselves."""
    networks: dict[str, None] = {}
    ends: dict[str, str] = {}
    for name in members:
        port = next(port for port in topology.machines[name].ports if port.lan == lan)
        networks |= {str(ip_interface(text).network): None for text in port.addresses}
        ends.setdefault(block_of[name], "" if len(topology.machines[name].ports) == 1 else _parts(port))
    return Wire(lan, tuple(networks), tuple(End(block, text) for block, text in ends.items()))


def _parts(port: Port) -> str:
    return ", ".join(host_part(ip_interface(text)) for text in port.addresses)


def _services(cluster: Cluster) -> tuple[tuple[str, ...], ...]:
    head = ("service", "VIPs", "port", "way")
    rows = [(name, _vips(service), _ports(service), _way(service)) for name, service in cluster.services.items()]
    return (head, *rows)


def _vips(service: Service) -> str:
    return ", ".join(map(str, service.vips))


def _ports(service: Service) -> str:
    numbers = ", ".join(map(str, service.ports))
    return numbers if service.protocol == "tcp" else f"{numbers}/{service.protocol}"


def _way(service: Service) -> str:
    if service.announce == "backend":
        return f"announced by the backends of {service.pool} themselves"
    l4 = f"L4 ({service.ipvs.scheduler})"
    if service.through == "l7":
        return f"{l4} → L7 ({service.mode}) → {service.pool}"
    return f"{l4} → {service.pool}"


def _names(cluster: Cluster) -> tuple[tuple[str, ...], ...]:
    section = cluster.dns
    if section is None:
        return ()
    rows = ((_full(name, section.zone), ", ".join(entry.services)) for name, entry in section.names.items())
    return (("name", "answered with the VIPs of"), *rows)


def _full(name: str, zone: str) -> str:
    return zone if name == "@" else f"{name}.{zone}"
