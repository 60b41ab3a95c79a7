"""What all rows share: a key, a rank, and the words a plan prints. And what IPVS knows a virtual service by, which rows
of many kinds name."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple

Key = tuple[str | int, ...]
Protocol = Literal["tcp", "udp", "sctp", "fwmark"]
ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - nothing is bound to it
"""What stands for a VIP in the key of a service by firewall mark: it only says the family."""

PROBE_MARKS = 0x6C000000
"""Firewall marks of our probes: from this one on, 2^24 of them."""


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
