"""What labs are for: experiments on a whole network, each step with its figures and a verdict.

`sight` reads what the nodes' kernels know, `stage` is a network with its programs and clients, `report` is what a
person sees, and a module per topology holds the steps.
"""

import sys
from collections.abc import Sequence
from pathlib import Path


def run(folder: Path, scale: str, work: Path, options: Sequence[str] = ()) -> int:
    """Runs the scenario of one topology; returns the exit status, after saying what was expected and where to look.

    `options`: `--rounds=N` (how often measured steps are repeated), `--only=STEP` (several times: these steps only).
    """
    from lbnode.lab.errors import LabError
    from lbnode.lab.scenarios import three_tier
    from lbnode.lab.scenarios.report import Report

    if folder.name != "three-tier":
        raise LabError(f"cannot run {folder.name}: it has no scenario, but `lbnode lab up` brings it up")
    only = [value for name, _, value in (option.partition("=") for option in options) if name == "--only"]
    rounds = [int(value) for name, _, value in (option.partition("=") for option in options) if name == "--rounds"]
    report = Report()
    try:
        three_tier.run(folder, scale, work, report, only, rounds[-1] if rounds else three_tier.ROUNDS)
    except LabError as error:
        sys.stdout.flush()
        sys.stderr.write(f"lbnode lab: {error}\n    logs: {work / 'logs'}\n")
        return error.exit_code
    return 0
