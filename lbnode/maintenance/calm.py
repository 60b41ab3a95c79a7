"""When a node has been without flows for long enough. PURE.

New flows may still come for a moment after the drain has begun, and a probe may connect; so one look that finds nothing
is not enough.
"""

import re

from lbnode.errors import LbnodeError

UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
SPAN = re.compile(r"([0-9]{1,9}(d|h|min|m|s))+|[0-9]{1,9}")
PART = re.compile(r"([0-9]+)(d|h|min|m|s|)")


class Calm:
    """Takes one look after the other, each with its moment, and says when enough of them in a row found nothing."""

    def __init__(self, calm_s: float) -> None:
        self._calm_s = calm_s
        self._since: float | None = None

    def take(self, left: int, now: float) -> bool:
        """Whether nothing is left; `now` in seconds of any clock."""
        if left:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._calm_s


def seconds(span: str) -> int:
    """`90`, `90s`, `5min`, `2h`, `1h30m`, `2d` in seconds. Raises LbnodeError."""
    text = span.strip().lower()
    parts = PART.findall(text) if SPAN.fullmatch(text) else []
    found = sum(int(number) * UNITS[unit or "s"] for number, unit in parts)
    if not 0 < found <= 366 * 86400:
        raise LbnodeError(f"cannot understand {span!r}: write a time such as 90s, 5min, 2h or 1h30m")
    return found
