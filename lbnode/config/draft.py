"""What is certain about a cluster file that may be partly broken: the ground for the cross-checks. PURE.

A file with mistakes is still checked across its parts, and nothing must be said that only follows from a mistake
already reported. So each part of the draft says what is known, and whether it is all there: `None`, `unsure` and
`complete` stand for "another finding speaks of this".
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from lbnode.config.dnscheck import DraftDns
from lbnode.config.model import IPAddress
from lbnode.config.positions import Path
from lbnode.config.sound import Section
from lbnode.config.speaking import Speaking

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
    attributes: Section

    def lacks(self, version: int) -> bool:
        """True when it certainly has no address of that version, but one of the other."""
        return version not in self.own and version not in self.unsure and bool(self.own)

    @property
    def certain(self) -> bool:
        return bool(self.own) and not self.unsure


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
