"""Rows of the node itself, whatever its role: kernel settings, devices, addresses, policy rules, ports for tunnels."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from lbnode.resources.row import Row

LINK_PREFIX = "lb-"
"""Devices whose name begins so are ours: made, repaired and removed by lbnode."""

PROTOCOL = 76
"""Says who made a rule or route (rtnetlink.h, RTPROT_*): a number that no known program uses."""


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
class FouPort(Row):
    """A UDP port on which the kernel takes packets of one family out of GUE (net/ipv4/fou_core.c)."""

    KIND: ClassVar[str] = "fou-port"
    RANK: ClassVar[int] = 15
    KEY: ClassVar[tuple[str, ...]] = ("version", "port")

    version: Literal[4, 6]
    port: int


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
