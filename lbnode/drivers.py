"""The seam between decisions and the system: what a driver is, and what it answers.

A driver holds no policy. It reads the rows of its kinds that are ours, and it carries out a batch of changes in the
order given. `DRIVERS` of a role are listed in `lbnode.reconcile`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lbnode.plan import Change
from lbnode.resources import Key, Row


class Busy(NamedTuple):
    """What a destination that nobody wants any more still has: connections (of all states), and for how many seconds
    it has been unwanted."""

    connections: int
    unwanted_s: float


@dataclass(frozen=True)
class Observed:
    """`rows` are ours; `foreign` describes, one line each, what stands beside them and is left alone. `busy`: the
    destinations in `rows` that are not wanted and have connections, by key."""

    rows: tuple[Row, ...] = ()
    foreign: tuple[str, ...] = ()
    busy: Mapping[Key, Busy] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What became of one change: `error` is empty when it was carried out. `way` says how, where there are several."""

    change: Change
    error: str = ""
    way: str = ""

    def __str__(self) -> str:
        return f"{self.change}; {self.way}" if self.way else str(self.change)


class Driver(Protocol):
    """Reads and writes the rows of some kinds."""

    kinds: tuple[type[Row], ...]

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """The rows of `kinds` that are ours, as they are now.

        `wanted` are the desired rows of these kinds: settings without an owner of their own (sysctls, files) are looked
        up for just these, and an IPVS service in them is ours even when something else made it.
        Raises LbnodeError when the state cannot be read at all.
        """
        ...

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """Carries out all of them, in order, one Result each. A failed change never stops the others; only what is
        unexpected raises."""
        ...
