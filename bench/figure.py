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
    """`values`: side -> one number per round, in `unit` (ms, MB, %). `against` is the side that `goal` speaks of, or ""
    for a goal that is a bound: `goal` times faster than that side, or at most `goal` units. 0 is no goal."""

    what: str
    unit: str
    values: Mapping[str, list[float]] = field(default_factory=dict)
    goal: float = 0
    against: str = ""
    where: str = "lab kernel"

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
        return self.ratio(self.against) >= self.goal if self.against else self.median(OURS) <= self.goal

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Figure":
        return cls(**data)
