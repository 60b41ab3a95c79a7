"""Rows of what makes routers send packets here: prefixes told to a BGP peer, or put where a speaker announces from."""

from dataclasses import dataclass
from typing import ClassVar

from lbnode.resources.row import Row

ANNOUNCE_LINK = "lb-announce"
"""The VRF whose table holds the announced routes: FRR reads kernel routes of a table other than main only so."""


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
