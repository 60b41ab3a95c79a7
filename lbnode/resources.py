"""The rows of desired and actual state. A row is frozen, hashable, and compares by configured fields only.

Every row has a `key` (what it is: two rows with one key are the same thing, perhaps with other settings) and a `rank`
(when it is made: creates go up the ranks, deletes go down). Counters, states that come and go and everything else that
nobody configures have no place here.

    rank   row                what it is
      10   Sysctl             one kernel setting of the node (25 when it belongs to a link of ours)
      15   FouPort            a UDP port on which the kernel takes packets out of GUE
      20   Link               a device of ours; its name begins with LINK_PREFIX
      26   Classifier         the program that gives flows a second chance, with its maps, in the kernel
      27   ChanceTable        where flows may live: the Maglev tables of a group of services, now and before
      28   ChanceEndpoint, ChancePeer, ChanceOwn     what the program knows beside that
      30   Address            a VIP on a device of ours
      31   ChanceFilter       the program on a device
      35   Rule               a policy rule: which look-ups ask which routing table
      40   File               a generated file
      45   SourceAllow, SynLimit, PacketMark, MssClamp, TunnelGuard     rules of our own nftables table
           FilterDamage       something else in that table, or missing from it
      50   Running            a program that runs with the generated file
      51   ProxyTable         a map or list that HAProxy holds
      52   Certificate        a certificate that HAProxy holds
      53   PoolServer         a server inside HAProxy
      55   ServerState        the state of one server inside HAProxy that lbnode decides
      58   IpvsTimeouts       IPVS: how long an idle flow keeps its entry
      60   VirtualService     IPVS: VIP, protocol, port
      65   LocalRoute         a failed real server's address: packets for it end on this node
      70   Destination        IPVS: one real server's row under one virtual service
      75   DestinationOrder   IPVS: the order of those rows, which decides the Maglev table
      90   Announcement       one prefix told to one BGP peer
           AnnouncedRoute     one prefix in the routing table that another BGP speaker announces from
"""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, NamedTuple

LINK_PREFIX = "lb-"
"""Devices whose name begins so are ours: made, repaired and removed by lbnode."""

LOCAL_TABLE = 77
"""The routing table of our local routes: a number of our own beside the kernel's main (254) and local (255)."""

PROTOCOL = 76
"""Says who made a rule or route (rtnetlink.h, RTPROT_*): a number that no known program uses."""

ANNOUNCE_LINK = "lb-announce"
"""The VRF whose table holds the announced routes: FRR reads kernel routes of a table other than main only so."""

Key = tuple[str | int, ...]
Protocol = Literal["tcp", "udp", "sctp", "fwmark"]
ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - nothing is bound to it
"""What stands for a VIP in the key of a service by firewall mark: it only says the family."""


PROBE_MARKS = 0x6C000000
"""Firewall marks of our probes: from this one on, 2^24 of them."""

SH_SLOTS = 256
"""Slots in a table of scheduler sh, CONFIG_IP_VS_SH_TAB_BITS's default (net/netfilter/ipvs/Kconfig)."""


class ServiceKey(NamedTuple):
    """What IPVS knows a virtual service by. `vip` is an address in its canonical text form. A service by firewall mark
    has protocol `fwmark`, the mark as its port, and one of ANY as its VIP."""

    vip: str
    protocol: Protocol
    port: int

    @classmethod
    def of_mark(cls, mark: int, version: int) -> "ServiceKey":
        return cls(ANY[version], "fwmark", mark)

    @property
    def real_port(self) -> int:
        """The port of its destinations, unless they are told another; 0: as the client's packet says."""
        return 0 if self.protocol == "fwmark" else self.port

    @property
    def carries_probes(self) -> bool:
        """Whether it is there for probes alone."""
        return self.protocol == "fwmark" and self.port & 0xFF000000 == PROBE_MARKS

    def __str__(self) -> str:
        if self.protocol == "fwmark":
            return f"fwmark {self.port:#x}{' ipv6' if self.vip == ANY[6] else ' ipv4'}"
        host = f"[{self.vip}]" if ":" in self.vip else self.vip
        return f"{host}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Row:
    """What all rows share: identity, place in the order, and the words a plan prints. `KEY` names the fields that make
    a row what it is; the others are its settings."""

    KIND: ClassVar[str] = ""
    RANK: ClassVar[int] = 0
    LEAVES_FIRST: ClassVar[bool] = False
    """Whether it goes before anything else is made or changed, and not after all of it."""
    KEY: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> Key:
        """Unique among all rows; begins with the kind."""
        parts: list[str | int] = [self.KIND]
        for name in self.KEY:
            value = getattr(self, name)
            parts += value if isinstance(value, ServiceKey) else [value]
        return tuple(parts)

    @property
    def rank(self) -> int:
        return self.RANK

    @property
    def title(self) -> str:
        """The key in words, without the kind: `198.51.100.1:80/tcp`."""
        return " ".join(str(getattr(self, name)) for name in self.KEY)

    @property
    def place(self) -> Key:
        """Sorts rows of one rank among each other. Begins with the kind; rows of a kind have the same types in it."""
        return self.key

    def settings(self) -> dict[str, object]:
        """The compared fields that are not part of the key, for a plan's `old -> new`."""
        return {
            item.name: getattr(self, item.name) for item in fields(self) if item.compare and item.name not in self.KEY
        }


@dataclass(frozen=True, slots=True)
class Sysctl(Row):
    """`name` in dots (`net.ipv4.vs.sloppy_tcp`); `value` as /proc/sys prints it."""

    KIND: ClassVar[str] = "sysctl"
    RANK: ClassVar[int] = 10
    KEY: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    value: str

    @property
    def rank(self) -> int:
        # A link's own settings do not exist before the link does.
        return 25 if f".{LINK_PREFIX}" in self.name else self.RANK


@dataclass(frozen=True, slots=True)
class Link(Row):
    """A device that is up. `local` is the outer address a tunnel listens on; the remote end is any. With `checksum`,
    GRE packets must carry one, and without it they must not (net/ipv4/ip_tunnel.c, ip_tunnel_rcv). `table` is the
    routing table of a vrf."""

    KIND: ClassVar[str] = "link"
    RANK: ClassVar[int] = 20
    KEY: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    type: Literal["dummy", "ipip", "ip6tnl", "gre", "ip6gre", "vrf"]
    local: str = ""
    up: bool = True
    checksum: bool = False
    table: int = 0

    def settings(self) -> dict[str, object]:
        checksum = "wanted" if self.checksum else ""
        state = "up" if self.up else "down"
        return {
            "type": self.type,
            "local": self.local,
            "checksum": checksum,
            "table": self.table or "",
            "state": state,
        }


@dataclass(frozen=True, slots=True)
class Classifier(Row):
    """The classifier is in the kernel, with its maps; `program` is the digest of its object file."""

    KIND: ClassVar[str] = "classifier"
    RANK: ClassVar[int] = 26

    program: str

    @property
    def title(self) -> str:
        return "of this node"


@dataclass(frozen=True, slots=True)
class ChanceTable(Row):
    """Where the flows of a group of services may live (`lbnode.chance.layout`); `digest` is the content's."""

    KIND: ClassVar[str] = "chance-table"
    RANK: ClassVar[int] = 27
    KEY: ClassVar[tuple[str, ...]] = ("number",)

    number: int
    digest: str
    content: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ChanceEndpoint(Row):
    """Flows to a VIP and TCP port get their second chance by this table. `by_port`: the client's port is hashed too."""

    KIND: ClassVar[str] = "chance-endpoint"
    RANK: ClassVar[int] = 28
    KEY: ClassVar[tuple[str, ...]] = ("service",)

    service: ServiceKey
    table: int
    by_port: bool = True

    def settings(self) -> dict[str, object]:
        return {"table": self.table, "by": "address and port" if self.by_port else "address"}


@dataclass(frozen=True, slots=True)
class ChancePeer(Row):
    """A machine whose packets may be sent on: an L4 node, or a real server that has sent it on already."""

    KIND: ClassVar[str] = "chance-peer"
    RANK: ClassVar[int] = 28
    KEY: ClassVar[tuple[str, ...]] = ("address",)

    address: str
    what: Literal["l4", "real-server"]

    def settings(self) -> dict[str, object]:
        return {"is": self.what}


@dataclass(frozen=True, slots=True)
class ChanceOwn(Row):
    """The address of this node that tunnels of one family end at."""

    KIND: ClassVar[str] = "chance-own"
    RANK: ClassVar[int] = 28
    KEY: ClassVar[tuple[str, ...]] = ("version",)

    version: Literal[4, 6]
    address: str

    @property
    def title(self) -> str:
        return f"ipv{self.version}"

    def settings(self) -> dict[str, object]:
        return {"address": self.address}


@dataclass(frozen=True, slots=True)
class ChanceFilter(Row):
    """The classifier sees what comes in by a device. `program` as in Classifier: what runs there may be another."""

    KIND: ClassVar[str] = "chance-filter"
    RANK: ClassVar[int] = 31
    KEY: ClassVar[tuple[str, ...]] = ("device",)

    device: str
    program: str


@dataclass(frozen=True, slots=True)
class Address(Row):
    """One address (its canonical text, no prefix) on a device of ours, always as a host prefix (/32 or /128)."""

    KIND: ClassVar[str] = "address"
    RANK: ClassVar[int] = 30
    KEY: ClassVar[tuple[str, ...]] = ("address", "device")

    address: str
    device: str

    @property
    def title(self) -> str:
        return f"{self.address} on {self.device}"


@dataclass(frozen=True, slots=True)
class Rule(Row):
    """Look-ups of one family that match ask `table`, in ascending order of `priority`; without an answer the next rule
    is asked. `incoming` is a device, and `lo` means what this node itself sends; `mark` and `mask` as in
    `fwmark MARK/MASK`, both 0 for any."""

    KIND: ClassVar[str] = "rule"
    RANK: ClassVar[int] = 35
    KEY: ClassVar[tuple[str, ...]] = ("version", "priority", "table", "incoming", "mark", "mask")

    version: Literal[4, 6]
    priority: int
    table: int
    incoming: str = ""
    mark: int = 0
    mask: int = 0

    @property
    def title(self) -> str:
        """As `ip rule add` takes it, after the family."""
        device = f" iif {self.incoming}" if self.incoming else ""
        mark = f" fwmark {self.mark:#x}/{self.mask:#x}" if self.mask else ""
        return f"ipv{self.version} pref {self.priority}{device}{mark} lookup {self.table}"


@dataclass(frozen=True, slots=True)
class File(Row):
    """A generated file. `checker` names the program that must accept the content before it replaces the old; `group`,
    who else may read it, if this host has such a group: "" for the group of whoever writes it."""

    KIND: ClassVar[str] = "file"
    RANK: ClassVar[int] = 40
    KEY: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    content: str = field(repr=False)
    mode: int = 0o644
    group: str = ""
    checker: Literal["", "haproxy", "exabgp"] = field(default="", compare=False)

    def settings(self) -> dict[str, object]:
        return {"lines": self.content.count("\n"), "mode": f"{self.mode:04o}", "group": self.group}


@dataclass(frozen=True, slots=True)
class SourceAllow(Row):
    """Packets to a service from elsewhere than `sources` (networks in canonical text, sorted) are dropped."""

    KIND: ClassVar[str] = "source-allow"
    RANK: ClassVar[int] = 45
    KEY: ClassVar[tuple[str, ...]] = ("service",)

    service: ServiceKey
    sources: tuple[str, ...]

    def settings(self) -> dict[str, object]:
        return {"sources": " ".join(self.sources)}


@dataclass(frozen=True, slots=True)
class SynLimit(Row):
    """SYNs to a service beyond `per_s` in a second, and `burst` more at once, are dropped."""

    KIND: ClassVar[str] = "syn-limit"
    RANK: ClassVar[int] = 45
    KEY: ClassVar[tuple[str, ...]] = ("service",)

    service: ServiceKey
    per_s: int
    burst: int


@dataclass(frozen=True, slots=True)
class PacketMark(Row):
    """Packets to a VIP, protocol and port get a firewall mark, by which IPVS finds their virtual service."""

    KIND: ClassVar[str] = "packet-mark"
    RANK: ClassVar[int] = 45
    KEY: ClassVar[tuple[str, ...]] = ("service",)

    service: ServiceKey
    mark: int

    def settings(self) -> dict[str, object]:
        return {"mark": f"{self.mark:#x}"}


@dataclass(frozen=True, slots=True)
class MssClamp(Row):
    """The node's own SYN and SYN-ACK packets from a VIP say at most this MSS (bytes)."""

    KIND: ClassVar[str] = "mss-clamp"
    RANK: ClassVar[int] = 45
    KEY: ClassVar[tuple[str, ...]] = ("vip",)

    vip: str
    mss: int


@dataclass(frozen=True, slots=True)
class TunnelGuard(Row):
    """Tunnelled packets of an IP protocol (4 IPIP, 41 IPv6, 47 GRE; 17 for GUE, on `port`) from elsewhere than
    `sources` (addresses in canonical text, sorted) are dropped before anything is taken out of them. `version` is that
    of the outer packet."""

    KIND: ClassVar[str] = "tunnel-guard"
    RANK: ClassVar[int] = 45
    KEY: ClassVar[tuple[str, ...]] = ("version", "protocol", "port")

    version: Literal[4, 6]
    protocol: int
    port: int
    sources: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"ipv{self.version} protocol {self.protocol}" + (f" port {self.port}" if self.port else "")

    def settings(self) -> dict[str, object]:
        return {"sources": " ".join(self.sources)}


@dataclass(frozen=True, slots=True)
class FilterDamage(Row):
    """Something in our nftables table that no row put there, or that a row there lacks. Never wanted: its removal means
    that the table is written anew."""

    KIND: ClassVar[str] = "filter-damage"
    RANK: ClassVar[int] = 45
    KEY: ClassVar[tuple[str, ...]] = ("what",)

    what: str


@dataclass(frozen=True, slots=True)
class FouPort(Row):
    """A UDP port on which the kernel takes packets of one family out of GUE (net/ipv4/fou_core.c)."""

    KIND: ClassVar[str] = "fou-port"
    RANK: ClassVar[int] = 15
    KEY: ClassVar[tuple[str, ...]] = ("version", "port")

    version: Literal[4, 6]
    port: int


@dataclass(frozen=True, slots=True)
class Running(Row):
    """A program that runs with the generated configuration. `config` is the digest written into that file: for HAProxy,
    of what only a reload can change; `parts` are those of its sections, by title."""

    KIND: ClassVar[str] = "running"
    RANK: ClassVar[int] = 50
    KEY: ClassVar[tuple[str, ...]] = ("program",)

    program: Literal["haproxy", "exabgp"]
    config: str
    parts: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ProxyTable(Row):
    """What a running HAProxy holds of a file: `entries` are its lines, sorted but for a list of certificates, whose
    first one is everybody's."""

    KIND: ClassVar[str] = "proxy-table"
    RANK: ClassVar[int] = 51
    KEY: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    kind: Literal["map", "acl", "crt-list"]
    entries: tuple[str, ...]

    @property
    def title(self) -> str:
        return self.path.rpartition("/")[2]

    def settings(self) -> dict[str, object]:
        return {"entries": " ".join(self.entries) if len(self.entries) < 4 else f"{len(self.entries)} of them"}


@dataclass(frozen=True, slots=True)
class Certificate(Row):
    """A certificate that a running HAProxy has read from `path`; `fingerprint` is its SHA-1, in hexadecimal."""

    KIND: ClassVar[str] = "certificate"
    RANK: ClassVar[int] = 52
    KEY: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PoolServer(Row):
    """A server inside a running HAProxy. `words` are what `add server` needs besides; `checked`: HAProxy checks it;
    `asked`: HAProxy asks its agent, whose percentages count from the weight it was made with.

    `leaving`: it was taken out for good, and goes when its connections have ended.
    """

    KIND: ClassVar[str] = "server"
    RANK: ClassVar[int] = 53
    KEY: ClassVar[tuple[str, ...]] = ("backend", "server")

    backend: str
    server: str
    address: str
    port: int
    weight: int
    leaving: bool = False
    words: str = field(default="", compare=False, repr=False)
    checked: bool = field(default=False, compare=False)
    asked: bool = field(default=False, compare=False)

    @property
    def key(self) -> Key:
        return (self.KIND, self.backend, self.server)

    @property
    def title(self) -> str:
        return f"{self.backend}/{self.server}"

    def settings(self) -> dict[str, object]:
        leaves = {"leaving": "yes"} if self.leaving else {"leaving": ""}
        return {"address": self.address, "port": self.port, "weight": self.weight, **leaves}


@dataclass(frozen=True, slots=True)
class ServerState(Row):
    """Whether HAProxy's agent state of one server is up. Only rows that lbnode itself decides (the enabler)."""

    KIND: ClassVar[str] = "server-state"
    RANK: ClassVar[int] = 55
    KEY: ClassVar[tuple[str, ...]] = ("backend", "server")

    backend: str
    server: str
    up: bool

    @property
    def title(self) -> str:
        return f"{self.backend}/{self.server}"

    def settings(self) -> dict[str, object]:
        return {"agent": "up" if self.up else "down"}


@dataclass(frozen=True, slots=True)
class IpvsTimeouts(Row):
    """After how many seconds without a packet IPVS forgets a flow: an open one, one that a side has ended, UDP. One
    setting for the network namespace, shared with everybody's services."""

    KIND: ClassVar[str] = "ipvs-timeouts"
    RANK: ClassVar[int] = 58

    tcp_s: int
    tcp_fin_s: int
    udp_s: int

    @property
    def title(self) -> str:
        return "of this node"

    def settings(self) -> dict[str, object]:
        return {"tcp": self.tcp_s, "tcp_fin": self.tcp_fin_s, "udp": self.udp_s}


@dataclass(frozen=True, slots=True)
class VirtualService(Row):
    """`flags` by name, sorted: those of the scheduler (mh-fallback is SCHED1, mh-port SCHED2), `one-packet`,
    `persistent`. `timeout_s` and `prefix` (bits of a client's address that count; 0 for all) belong to persistence."""

    KIND: ClassVar[str] = "virtual-service"
    RANK: ClassVar[int] = 60
    KEY: ClassVar[tuple[str, ...]] = ("service",)

    service: ServiceKey
    scheduler: str = "mh"
    flags: tuple[str, ...] = ("mh-fallback", "mh-port")
    timeout_s: int = 0
    prefix: int = 0

    def settings(self) -> dict[str, object]:
        persistence = f"{self.timeout_s} s per /{self.prefix or 'address'}" if self.timeout_s else ""
        return {"scheduler": self.scheduler, "flags": ",".join(self.flags), "persistence": persistence}


@dataclass(frozen=True, slots=True)
class LocalRoute(Row):
    """Makes this node's own kernel take what IPVS sends to a failed real server's address. It knows no such flow, so it
    answers with a RST from the VIP. `source` is an address of this node: without it IPVS repeats its look-up with
    the failed address as the source, which is refused (net/netfilter/ipvs/ip_vs_xmit.c).

    It comes before the destination's weight goes to 0, and goes before that rises: with it, new flows are refused.
    """

    KIND: ClassVar[str] = "local-route"
    RANK: ClassVar[int] = 65
    KEY: ClassVar[tuple[str, ...]] = ("address",)
    LEAVES_FIRST: ClassVar[bool] = True

    address: str
    source: str

    @property
    def version(self) -> Literal[4, 6]:
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True)
class Destination(Row):
    """One real server's row. `port` is the service's own (a tunnel does not rewrite it) unless it masquerades; 0 says
    so: see `real_port`. `upper` and `lower` are connection counts, 0 for none; `tunnel_port` belongs to gue,
    `tunnel_checksum` to gue and gre.

    `weight` is what new flows get now; 0 while down or draining. `table_weight` is the weight the row holds its Maglev
    slots with: the kernel remembers the last weight above 0 (ip_vs_mh.c, `last_weight`), so a row is always added with
    it and only then set to 0. The kernel does not report it, so it is not compared. `serial` is its place in the
    canonical order (see DestinationOrder): rows are added in ascending order of it.
    """

    KIND: ClassVar[str] = "destination"
    RANK: ClassVar[int] = 70
    KEY: ClassVar[tuple[str, ...]] = ("service", "address", "port")

    service: ServiceKey
    address: str
    weight: int
    table_weight: int = field(default=1, compare=False)
    serial: int = field(default=0, compare=False)
    forwarding: Literal["tunnel", "route", "masquerade"] = "tunnel"
    tunnel: Literal["ipip", "gue", "gre"] = "ipip"
    port: int = 0
    tunnel_port: int = 0
    tunnel_checksum: Literal["none", "full", "remote"] = "none"
    upper: int = 0
    lower: int = 0

    @property
    def key(self) -> Key:
        # As Row.key has it, written out: a pass asks for it some 100,000 times.
        return (self.KIND, *self.service, self.address, self.port)

    @property
    def real_port(self) -> int:
        return self.port or self.service.real_port

    @property
    def name(self) -> str:
        """What it is called among the rows of its service: its address, and its port if that is its own."""
        if not self.port:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def title(self) -> str:
        return f"{self.service} -> {self.name}"

    @property
    def place(self) -> tuple[str | int, ...]:
        return (self.KIND, *self.service, self.serial, self.address, self.port)

    def settings(self) -> dict[str, object]:
        words: list[str] = [self.forwarding, self.tunnel] if self.forwarding == "tunnel" else [self.forwarding]
        words += [f"port {self.tunnel_port}"] if self.tunnel_port else []
        words += [f"checksum {self.tunnel_checksum}"] if self.tunnel_checksum != "none" else []
        limits = f"{self.upper}, again below {self.lower}" if self.upper else ""
        return {"weight": self.weight, "forwarding": " ".join(words), "connections": limits}


@dataclass(frozen=True, slots=True)
class DestinationOrder(Row):
    """The canonical order of a service's rows, oldest first. The kernel lists them newest first (ip_vs_ctl.c adds at
    the head) and builds the Maglev table in that order, so every L4 node must hold the same one."""

    KIND: ClassVar[str] = "destination-order"
    RANK: ClassVar[int] = 75
    KEY: ClassVar[tuple[str, ...]] = ("service",)

    service: ServiceKey
    names: tuple[str, ...]
    """Of its destinations (`Destination.name`)."""

    def settings(self) -> dict[str, object]:
        return {"order": " ".join(self.names)}


@dataclass(frozen=True, slots=True)
class Announcement(Row):
    """One prefix told to one peer. `peer` is the peer's address, `prefix` a host prefix in canonical text.

    `prepend`: how often the own AS stands in front of the path beside what BGP itself puts there. Communities are
    canonical (`65001:100`, `65001:1:2`), without repeats."""

    KIND: ClassVar[str] = "announcement"
    RANK: ClassVar[int] = 90
    LEAVES_FIRST: ClassVar[bool] = True
    KEY: ClassVar[tuple[str, ...]] = ("prefix", "peer")

    prefix: str
    peer: str
    next_hop: str
    med: int | None = None
    communities: tuple[str, ...] = ()
    local_preference: int | None = None
    large_communities: tuple[str, ...] = ()
    prepend: int = 0

    @property
    def title(self) -> str:
        return f"{self.prefix} to {self.peer}"

    def settings(self) -> dict[str, object]:
        return {
            "next_hop": self.next_hop,
            "med": self.med,
            "local_preference": self.local_preference,
            "communities": " ".join(self.communities),
            "large_communities": " ".join(self.large_communities),
            "prepend": self.prepend or None,
        }


FIRST_CHOICE, SECOND_CHOICE = 100, 200
"""The metric of an announced route; also to who takes it for a MED, the lower is the better one."""


@dataclass(frozen=True, slots=True)
class AnnouncedRoute(Row):
    """One prefix in the routing table that BIRD or FRR announces from; packets are never looked up there.

    `metric` (FIRST_CHOICE or SECOND_CHOICE) says with which attributes it is announced. `stale` are the metrics of
    more routes of ours to the same prefix, and of such that are no blackholes: never wanted. `metric` is None when
    these are all there is.
    """

    KIND: ClassVar[str] = "announced-route"
    RANK: ClassVar[int] = 90
    LEAVES_FIRST: ClassVar[bool] = True
    KEY: ClassVar[tuple[str, ...]] = ("prefix", "table")

    prefix: str
    table: int
    metric: int | None = FIRST_CHOICE
    stale: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.prefix} in table {self.table}"

    def settings(self) -> dict[str, object]:
        words = {FIRST_CHOICE: "first choice", SECOND_CHOICE: "second choice"}
        return {
            "as": words.get(self.metric or 0, f"metric {self.metric}"),
            "besides": " ".join(f"metric {metric}" for metric in self.stale),
        }


ANNOUNCING = (Announcement, AnnouncedRoute)
"""What makes routers send packets here, in one way or the other; both have a `prefix`."""
