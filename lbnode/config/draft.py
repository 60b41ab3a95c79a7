"""What is certain about a cluster file that may be partly broken: the ground for the cross-checks. PURE.

A file with mistakes is still checked across its parts, and nothing must be said that only follows from a mistake
already reported. So each part of the draft says what is known, and whether it is all there: `None`, `unsure` and
`complete` stand for "another finding speaks of this".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from lbnode.config import dnscheck
from lbnode.config.bgp import Attributes
from lbnode.config.dnscheck import DraftDns
from lbnode.config.http import Clients, FromDns, ServerTls, Tls
from lbnode.config.model import Access, Balancing, Check, Cluster, IPAddress, Model, Node, Service, ServiceProbe
from lbnode.config.positions import Path
from lbnode.config.speaking import Speaking, speaking
from lbnode.config.words import at

FAMILIES = {4: "ipv4", 6: "ipv6"}


@dataclass(frozen=True)
class DraftNode:
    """`own` holds the known addresses by IP version; `unsure` the versions that another finding speaks of. `weight` and
    `serial` are None when another finding speaks of them; a serial of 0 was left out."""

    name: str
    path: Path
    role: str | None
    own: dict[int, IPAddress]
    unsure: frozenset[int]
    tags: frozenset[str]
    weight: int | None
    serial: int | None
    attributes: "Section"

    def lacks(self, version: int) -> bool:
        """True when it certainly has no address of that version, but one of the other."""
        return version not in self.own and version not in self.unsure and bool(self.own)

    @property
    def certain(self) -> bool:
        return bool(self.own) and not self.unsure


@dataclass(frozen=True)
class Section:
    """One mapping of settings: `values` by key, as written or by default, without those that another finding speaks of;
    `given` holds the keys that were written with a sound value."""

    path: Path
    values: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, key: str) -> Any:
        """None when it is not known, or is none."""
        return self.values.get(key)

    def at(self, *keys: str | int) -> Path:
        return (*self.path, *keys)


@dataclass(frozen=True)
class DraftRoute:
    """`hosts` and `paths` hold the sound ones; `complete` says that there are no others."""

    name: str
    path: Path
    hosts: tuple[tuple[Path, str], ...]
    paths: tuple[tuple[Path, str], ...]
    pool: str | None
    complete: bool


@dataclass(frozen=True)
class DraftService:
    """`given` holds the keys that were written with a sound value. A number that is not known is None; a `quorum_high`
    of 0 was left out."""

    name: str
    path: Path
    vips: tuple[tuple[Path, IPAddress], ...]
    ports: tuple[tuple[Path, int], ...]
    pool: str | None
    through: str | None
    announce: str | None
    protocol: str | None
    quorum: int | None
    quorum_high: int | None
    slow_start_s: int | None
    probe: Section
    ipvs: Section
    access: Section
    attributes: Section
    mode: str | None
    balance: str | None
    tls: Section
    clients: Section
    routes: tuple[DraftRoute, ...]
    given: frozenset[str]

    @property
    def pools(self) -> tuple[str, ...]:
        """The known pools that HAProxy uses for it."""
        names = (self.pool, *(route.pool for route in self.routes))
        return tuple(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class DraftPool:
    """`nodes` is None when every backend with its `tags` belongs to it."""

    name: str
    path: Path
    nodes: tuple[tuple[Path, str], ...] | None
    tags: tuple[tuple[Path, str], ...]
    dns: Section
    complete: bool
    backup: tuple[tuple[Path, str], ...]
    check: Section
    tls: Section

    @property
    def found_by_dns(self) -> bool:
        """Whether its servers are, or may be, no nodes of the file."""
        return "name" not in self.dns.values or self.dns["name"] is not None


@dataclass(frozen=True)
class DraftPeer:
    """`nodes` is None when every node that announces speaks with it, and empty when that is not known. `given` holds
    the keys that were written with a sound value."""

    name: str
    path: Path
    address: IPAddress | None
    asn: int | None
    nodes: tuple[tuple[Path, str], ...] | None
    complete: bool
    local_address: IPAddress | None
    attributes: Section
    given: frozenset[str]


@dataclass(frozen=True)
class Draft:
    """The whole file. `nodes_known` says that every node's name is known, `nodes_complete` that every
    node's role is too; `peers_complete` that every address is, `pools_complete` that every name is."""

    nodes: dict[str, DraftNode]
    nodes_known: bool
    nodes_complete: bool
    peers: tuple[tuple[str, Path, IPAddress], ...]
    peers_complete: bool
    sessions: dict[str, DraftPeer]
    local_asn: int | None
    announceable: tuple[tuple[Path, IPv4Network | IPv6Network], ...] | None
    announceable_complete: bool
    attributes: Section
    services: dict[str, DraftService]
    pools: dict[str, DraftPool]
    pools_complete: bool
    health_port: int | None
    agent_port: int | None
    metrics_port: int | None
    proxy_metrics_port: int | None
    speaking: Speaking
    dns: DraftDns | None

    def with_role(self, role: str) -> list[DraftNode]:
        return [node for node in self.nodes.values() if node.role == role]

    def announcers(self, service: DraftService) -> tuple[list[DraftNode], bool]:
        """The known nodes that announce a service's VIPs, and whether they are all."""
        if service.announce == "l4":
            return self.with_role("l4"), self.nodes_complete
        return self.members(service.pool) if service.announce == "backend" else ([], False)

    def members(self, name: str | None) -> tuple[list[DraftNode], bool]:
        """The known nodes of a pool, and whether they are all."""
        pool = self.pools.get(name or "")
        if pool is None or pool.found_by_dns:
            return [], False
        if pool.nodes is None:
            tags = {tag for _, tag in pool.tags}
            nodes = [node for node in self.with_role("backend") if tags <= node.tags]
            return nodes, self.nodes_complete and pool.complete
        known = dict.fromkeys(name for _, name in pool.nodes)
        nodes = [self.nodes[name] for name in known if name in self.nodes and self.nodes[name].role == "backend"]
        return nodes, pool.complete and len(nodes) == len(known)

    def real_servers(self, service: DraftService) -> tuple[list[DraftNode], bool]:
        """The known nodes that L4 nodes send a service's packets to, and whether they are all."""
        if service.through == "l7":
            return self.with_role("l7"), self.nodes_complete
        return self.members(service.pool) if service.through == "backend" else ([], False)


@dataclass(frozen=True)
class Sound:
    """The data (as read: text, lists, mappings) without its broken parts."""

    data: Any
    broken: set[Path]
    lost: set[Path]

    def entries(self, path: Path) -> dict[str, Any]:
        value = at(self.data, path)
        return value if isinstance(value, dict) else {}

    def complete(self, path: Path) -> bool:
        """Whether nothing is wrong with this very mapping or list (its entries may be wrong in themselves)."""
        value = at(self.data, path)
        if self.is_broken(path) or path in self.lost or (value is None and path[:-1] in self.lost):
            return False
        return not any((*path, index) in self.broken for index in range(len(value or ())))

    def is_broken(self, path: Path) -> bool:
        return bool(self.broken) and any(path[:end] in self.broken for end in range(len(path) + 1))

    def value(self, path: Path, default: str = "") -> str | None:
        """The text at `path`; `default` when it was certainly left out; None when that is not known."""
        found = at(self.data, path)
        if self.is_broken(path) or (found is None and path[:-1] in self.lost):
            return None
        return default if found is None else str(found)

    def number(self, path: Path, default: int) -> int | None:
        text = self.value(path, str(default))
        return None if text is None else int(text)

    def section(self, path: Path, model: type[Model]) -> Section:
        """What is known of a mapping all of whose keys have defaults."""
        written = self.entries(path)
        if self.is_broken(path) or (not written and path[:-1] in self.lost):
            return Section(path, {}, frozenset())
        wrong = {broken[len(path)] for broken in self.broken if broken[: len(path)] == path}
        given = frozenset(key for key in model.model_fields if key in written and key not in wrong)
        left_out = () if path in self.lost else model.model_fields.keys() - written.keys()
        sound = model.model_validate({key: written[key] for key in given})
        return Section(path, {key: getattr(sound, key) for key in (*given, *left_out)}, given)

    def items(self, path: Path) -> tuple[tuple[Path, str], ...]:
        """The sound entries of a list."""
        value = at(self.data, path)
        paths = [(*path, index) for index in range(len(value))] if isinstance(value, list) else []
        return tuple((place, str(at(self.data, place))) for place in paths if place not in self.broken)


def draft(data: Any, broken: set[Path], lost: set[Path]) -> Draft:
    """`broken`: the paths of wrong or missing values; `lost`: the mappings that may lack keys the operator meant."""
    sound = Sound(data, broken, lost)
    nodes = {name: _node(sound, name) for name in sound.entries(("nodes",))}
    peers = {name: ("bgp", "peers", name, "address") for name in sound.entries(("bgp", "peers"))}
    cables = sound.entries(("bgp", "unnumbered"))  # they carry both families
    known = {name: text for name, path in peers.items() if (text := sound.value(path))}
    return Draft(
        nodes=nodes,
        nodes_known=sound.complete(("nodes",)),
        nodes_complete=sound.complete(("nodes",)) and all(node.role for node in nodes.values()),
        peers=tuple((name, peers[name], ip_address(text)) for name, text in known.items()),
        sessions={name: _peer(sound, name) for name in peers},
        local_asn=sound.number(("bgp", "local_asn"), 0) or None,
        announceable=_announceable(sound),
        announceable_complete=sound.complete(("bgp", "announceable")),
        attributes=sound.section(("bgp", "attributes"), Attributes),
        peers_complete=sound.complete(("bgp", "peers")) and len(known) == len(peers) > 0 and not cables,
        services={name: _service(sound, name) for name in sound.entries(("services",))},
        pools={name: _pool(sound, name) for name in sound.entries(("pools",))},
        pools_complete=sound.complete(("pools",)),
        health_port=sound.number(("health", "port"), Cluster.model_fields["health"].default.port),
        agent_port=sound.number(("agent_check", "port"), Cluster.model_fields["agent_check"].default.port),
        metrics_port=sound.number(("metrics", "port"), Cluster.model_fields["metrics"].default.port),
        proxy_metrics_port=sound.number(
            ("haproxy", "metrics_port"), Cluster.model_fields["haproxy"].default.metrics_port
        ),
        speaking=speaking(sound),
        dns=dnscheck.read(sound),
    )


def _node(sound: Sound, name: str) -> DraftNode:
    path = ("nodes", name)
    texts = {version: sound.value((*path, key)) for version, key in FAMILIES.items()}
    return DraftNode(
        name=name,
        path=path,
        role=sound.value((*path, "role")) or None,
        own={version: ip_address(text) for version, text in texts.items() if text},
        unsure=frozenset(version for version, text in texts.items() if text is None),
        tags=frozenset(tag for _, tag in sound.items((*path, "tags"))),
        weight=sound.number((*path, "weight"), Node.model_fields["weight"].default),
        serial=sound.number((*path, "serial"), 0),
        attributes=sound.section((*path, "attributes"), Attributes),
    )


def _peer(sound: Sound, name: str) -> DraftPeer:
    path: Path = ("bgp", "peers", name)
    address, local = (sound.value((*path, key)) for key in ("address", "local_address"))
    return DraftPeer(
        name=name,
        path=path,
        address=ip_address(address) if address else None,
        asn=sound.number((*path, "asn"), 0) or None,
        nodes=None if sound.value((*path, "nodes")) == "" else sound.items((*path, "nodes")),
        complete=sound.complete((*path, "nodes")),
        local_address=ip_address(local) if local else None,
        attributes=sound.section((*path, "attributes"), Attributes),
        given=frozenset(key for key in sound.entries(path) if (*path, key) not in sound.broken),
    )


def _announceable(sound: Sound) -> tuple[tuple[Path, IPv4Network | IPv6Network], ...] | None:
    path: Path = ("bgp", "announceable")
    if sound.value(path) == "":
        return None
    return tuple((place, ip_network(text)) for place, text in sound.items(path))


def _service(sound: Sound, name: str) -> DraftService:
    path: Path = ("services", name)
    ports = tuple((place, int(text)) for place, text in sound.items((*path, "ports")))
    if sound.value((*path, "ports")) == "":
        ports = tuple((path, port) for port in Service.model_fields["ports"].default)
    return DraftService(
        name=name,
        path=path,
        vips=tuple((place, ip_address(text)) for place, text in sound.items((*path, "vips"))),
        ports=ports,
        pool=sound.value((*path, "pool")) or None,
        through=sound.value((*path, "through"), Service.model_fields["through"].default),
        announce=sound.value((*path, "announce"), Service.model_fields["announce"].default),
        protocol=sound.value((*path, "protocol"), Service.model_fields["protocol"].default),
        quorum=sound.number((*path, "quorum"), Service.model_fields["quorum"].default),
        quorum_high=sound.number((*path, "quorum_high"), 0),
        slow_start_s=sound.number((*path, "slow_start_s"), Service.model_fields["slow_start_s"].default),
        probe=sound.section((*path, "probe"), ServiceProbe),
        ipvs=sound.section((*path, "ipvs"), Balancing),
        access=sound.section((*path, "access"), Access),
        attributes=sound.section((*path, "attributes"), Attributes),
        mode=sound.value((*path, "mode"), Service.model_fields["mode"].default),
        balance=sound.value((*path, "balance"), Service.model_fields["balance"].default),
        tls=sound.section((*path, "tls"), Tls),
        clients=sound.section((*path, "clients"), Clients),
        routes=tuple(_route(sound, (*path, "routes", key)) for key in sound.entries((*path, "routes"))),
        given=frozenset(key for key in sound.entries(path) if (*path, key) not in sound.broken),
    )


def _route(sound: Sound, path: Path) -> DraftRoute:
    return DraftRoute(
        name=str(path[-1]),
        path=path,
        hosts=tuple((place, text.lower()) for place, text in sound.items((*path, "hosts"))),
        paths=sound.items((*path, "paths")),
        pool=sound.value((*path, "pool")) or None,
        complete=sound.complete((*path, "hosts")) and sound.complete((*path, "paths")),
    )


def _pool(sound: Sound, name: str) -> DraftPool:
    path: Path = ("pools", name)
    every = sound.value((*path, "nodes")) == ""
    return DraftPool(
        name=name,
        path=path,
        nodes=None if every else sound.items((*path, "nodes")),
        tags=sound.items((*path, "tags")),
        dns=sound.section((*path, "dns"), FromDns),
        complete=all(sound.complete((*path, key)) for key in ("nodes", "tags")),
        backup=sound.items((*path, "backup")),
        check=sound.section((*path, "check"), Check),
        tls=sound.section((*path, "tls"), ServerTls),
    )
