"""When a VIP has come and gone too often. PURE.

Every withdrawal counts one, half of that after a half-life, and so on (RFC 2439, 4.4, with one for a penalty of 1000).
The one that makes it more than `flaps` - 1 is too many: the VIP is damped until the sum is less than one again. All
that is known are the moments of the withdrawals: whoever looks at them comes to the same end.

It is damped by being announced as a second choice, never by being held back: routers use the other nodes as long as
there is one, and this one when there is none. Servers that fail and come back are seen by all nodes at once; holding
the VIP back on all of them would be an outage made by the cure.
"""

from collections.abc import Iterable
from math import log2
from typing import Protocol

OVER = 1.0
"""Below this sum it ends."""
FORGOTTEN = 10
"""After so many half-lives a withdrawal counts a thousandth, and is forgotten."""


class Rule(Protocol):
    """As `config.leaving.Damping`."""

    @property
    def flaps(self) -> int: ...

    @property
    def half_life_s(self) -> int: ...

    @property
    def longest_s(self) -> int: ...


def damped_until(withdrawals: Iterable[float], rule: Rule) -> float | None:
    """The moment at which the damping that follows from these withdrawals ends, or ended; None when there was none.
    All in seconds of the same clock."""
    if not rule.flaps:
        return None
    level, last, end = 0.0, 0.0, None
    for at in sorted(withdrawals):
        level = level * 2 ** ((last - at) / rule.half_life_s) + 1
        # More than takes the longest time to decay would only prolong what comes after it.
        level = min(level, max(rule.flaps, 2 ** min(64.0, rule.longest_s / rule.half_life_s)))
        last = at
        if level > rule.flaps - 1 or (end is not None and at < end):
            end = at + min(rule.half_life_s * max(0.0, log2(level / OVER)), rule.longest_s)
    return end


def remembered(withdrawals: Iterable[float], rule: Rule, now: float) -> tuple[float, ...]:
    """Those that still count. One that lies ahead is of a clock that was wrong."""
    oldest = now - FORGOTTEN * rule.half_life_s
    return tuple(sorted(at for at in withdrawals if oldest < at <= now))
