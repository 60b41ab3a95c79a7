"""Rows of our own nftables table: what is dropped, marked and clamped before anything else sees it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from lbnode.resources.row import Row, ServiceKey


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
