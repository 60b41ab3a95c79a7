"""What a person sees of a scenario: a line per finding, with its time; plain text everywhere, and a few tables."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TextIO

from lbnode.lab.errors import LabError

SEEN_MAX = 2000


class Failed(LabError):
    """A scenario did not show what it is there to show: what was expected, what was seen."""

    exit_code = 1

    def __init__(self, expected: str, seen: object) -> None:
        text = str(seen)
        shown = text if len(text) <= SEEN_MAX else f"{text[:SEEN_MAX]} ... ({len(text)} characters)"
        super().__init__(f"expected: {expected}\n    seen: {shown}")


def expect(held: object, expected: str, seen: object) -> None:
    """Raises Failed unless `held` is true."""
    if not held:
        raise Failed(expected, seen)


class Report:
    """Lines on `out`, each with the seconds since the start. `figures` keeps what was measured, by name."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._start = time.monotonic()
        self._bold = ("\033[1m", "\033[0m") if self._out.isatty() else ("", "")
        self.figures: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def line(self, text: str) -> None:
        print(f"{self.seconds:7.1f}  {text}", file=self._out, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step: its title, and how long it took."""
        before, after = self._bold
        began = time.monotonic()
        self.line(f"{before}== {title}{after}")
        yield
        self.line(f"   ok, {time.monotonic() - began:.1f} s")

    def found(self, text: str) -> None:
        """One finding of a step."""
        self.line(f"   {text}")

    def times(self, name: str, what: str, seconds: Sequence[float]) -> None:
        """How long something took, several times over: one line, and figures `<name>` (median) and `<name>_worst`."""
        self.figures[name], self.figures[f"{name}_worst"] = median(seconds), max(seconds)
        middle, worst = (f"{value * 1000:.0f} ms" for value in (median(seconds), max(seconds)))
        count = f", {len(seconds)} times" if len(seconds) > 1 else ""
        self.found(f"{what}: {middle}" if len(seconds) == 1 else f"{what}: median {middle}, worst {worst}{count}")

    def table(self, head: Sequence[str], rows: Mapping[str, Sequence[object]]) -> None:
        """Columns under their heads, right-aligned but for the first."""
        lines = [list(head), *([name, *map(str, row)] for name, row in rows.items())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            first, *rest = line
            cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
            self.found("  ".join(cells).rstrip())
