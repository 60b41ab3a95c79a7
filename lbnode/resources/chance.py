"""Rows of the classifier, which gives flows a second chance: the program, the devices it sees, and what it is told."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lbnode.resources.row import Row, ServiceKey


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
