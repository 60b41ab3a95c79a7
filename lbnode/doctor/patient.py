"""The node that doctor looks at: what it is, and what it should look like."""

from dataclasses import dataclass

from lbnode.config.model import Cluster, Node
from lbnode.doctor import host
from lbnode.node import Identity
from lbnode.resources import Address, Row


@dataclass(frozen=True)
class Patient:
    """One node, what it should look like, and the devices that hold its own addresses, by family."""

    identity: Identity
    cluster: Cluster
    rows: tuple[Row, ...]
    uplinks: dict[int, host.Uplink]

    @property
    def node(self) -> Node:
        return self.cluster.nodes[self.identity.name]

    @property
    def apply(self) -> str:
        return f"lbnode apply --role {self.identity.role}"

    def of(self, *kinds: type[Row]) -> list[Row]:
        return [row for row in self.rows if isinstance(row, kinds)]

    def vips(self, version: int) -> list[str]:
        return [row.address for row in self.rows if isinstance(row, Address) and (":" in row.address) == (version == 6)]
