"""What does it cost to start lbnode, beside starting Python itself?

`lbnode --help` and `lbnode check` also run where the bench was called; a no-op `lbnode apply` needs a kernel with
ip_vs.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import clock, site
from bench.figure import OURS, Figure
from bench.site import Size

SIZE = Size(2, 4)
BARE = [sys.executable, "-c", "pass"]
TIMES = 5
"""Starts per round: one takes little time, so each round is the mean of some."""

Run = Callable[[Sequence[str]], object]


def measure_here(rounds: int) -> list[Figure]:
    """Where the bench was called."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "cluster.yaml")
        file.write_text(site.cluster_file(SIZE))
        commands = {
            "`lbnode --help`": site.lbnode("--help"),
            f"`lbnode check`, {SIZE}": site.lbnode("check", "-c", str(file)),
        }
        return _figures(rounds, commands, "host", lambda argv: subprocess.run(argv, check=True, capture_output=True))


def measure_inside(rounds: int, log: Path) -> list[Figure]:
    with site.standing(SIZE, log) as node:
        site.run(node, site.apply_command())
        commands = {"`lbnode --help`": site.lbnode("--help"), f"`lbnode apply`, no-op, {SIZE}": site.apply_command()}
        return _figures(rounds, commands, "lab kernel", lambda argv: site.run(node, argv))


def _figures(rounds: int, commands: Mapping[str, Sequence[str]], where: str, run: Run) -> list[Figure]:
    run(BARE)
    bare = [_mean(run, BARE) for _ in range(rounds)]
    found = []
    for what, argv in commands.items():
        run(argv)
        ours = [_mean(run, argv) for _ in range(rounds)]
        found.append(Figure(what, "ms", {OURS: ours, "python -c pass": bare}, where=where))
    return found


def _mean(run: Run, argv: Sequence[str]) -> float:
    return sum(clock.milliseconds(lambda: run(argv)) for _ in range(TIMES)) / TIMES
