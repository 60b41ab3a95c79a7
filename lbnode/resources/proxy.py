"""Rows of what a running HAProxy holds: its maps and lists, its certificates, its servers and their states."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lbnode.resources.row import Key, Row


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
        """What `Row.key` is, without its loop: there are thousands of these, and passes ask for it often."""
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
