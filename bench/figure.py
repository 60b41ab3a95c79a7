"""One measured question: what each side took, round by round, and what was hoped for. PURE.

A figure keeps all rounds; medians and ratios are worked out where they are shown, so that what is printed cannot differ
from what was measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

OURS = "lbnode"


@dataclass(frozen=True)
class Figure:
    """`values`: side -> one number per round, in `unit` (ms, MB, %). `goal`: how many times faster lbnode is to be than
    each of the others; or, where there are no others, how many units it may take at most. 0 is no goal. `worst`: the
    worst round is worth a word beside the median."""

    what: str
    unit: str
    values: Mapping[str, list[float]] = field(default_factory=dict)
    goal: float = 0
    where: str = "lab kernel"
    worst: bool = False

    @property
    def others(self) -> list[str]:
        return [side for side in self.values if side != OURS]

    def median(self, side: str) -> float:
        return median(self.values[side])

    def ratio(self, side: str) -> float:
        """How many times as much that side takes as lbnode."""
        return self.median(side) / self.median(OURS)

    @property
    def reached(self) -> bool | None:
        """None without a goal."""
        if not self.goal:
            return None
        if not self.others:
            return self.median(OURS) <= self.goal
        return all(self.ratio(side) >= self.goal for side in self.others)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Figure":
        return cls(**data)
