"""Rows of IPVS: virtual services, their real servers in order, and what becomes of the flows of a failed one."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lbnode.resources.row import Key, Row, ServiceKey

LOCAL_TABLE = 77
"""The routing table of our local routes: a number of our own beside the kernel's main (254) and local (255)."""

SH_SLOTS = 256
"""Slots in a table of scheduler sh, CONFIG_IP_VS_SH_TAB_BITS's default (net/netfilter/ipvs/Kconfig)."""


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
