"""What labs are for: experiments on a whole network, each step with its figures and a verdict.

`sight` reads what the nodes' kernels know, `stage` is a network with its programs and clients, `report` is what a
person sees; a module per topology holds its steps, `scenario` plays them, and `choice` knows which there are.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from lbnode.lab.errors import LabError


def run(folder: Path, scale: str, work: Path, options: Sequence[str] = ()) -> int:
    """Runs the scenario of one topology; returns the exit status, after saying what was expected and where to look.

    `options`: `--rounds=N` (how often measured steps are repeated), `--only=STEP` (several times: these steps only).
    """
    from lbnode.lab.scenarios import scenario
    from lbnode.lab.scenarios.choice import scenario_of
    from lbnode.lab.scenarios.report import Report

    only = _values(options, "--only")
    rounds = [int(value) for value in _values(options, "--rounds")]
    try:
        scenario.run(scenario_of(folder.name), folder, scale, work, Report(), only, rounds[-1] if rounds else 0)
    except LabError as error:
        return _told(error, work)
    return 0


def disrupt(folder: Path, scale: str, work: Path, options: Sequence[str]) -> int:
    """Runs the disruption experiment on a topology; the exit status is 1 when lbnode broke what it need not.

    `options`: the stack's name, `--flows=N`, `--event=NAME` (several times: these events only).
    """
    from lbnode.lab.scenarios import disruption
    from lbnode.lab.stacks.choice import stack_of

    try:
        stack = stack_of(options[0])
        flows = [int(value) for value in _values(options, "--flows")]
        events = disruption.chosen(_values(options, "--event"))
        order = disruption.Order(flows[-1] if flows else disruption.FLOWS, events)
        outcomes = disruption.run(folder, scale, work, stack, order)
    except LabError as error:
        return _told(error, work)
    return 1 if stack.name == "lbnode" and not all(outcome.kept for outcome in outcomes) else 0


def harm(folder: Path, scale: str, work: Path, options: Sequence[str]) -> int:
    """Runs the fault matrix on a topology; returns the exit status, 1 when a flow broke that need not.

    `options`: `--only=PROGRAM`, `--fault=NAME` (each several times: these only).
    """
    from lbnode.lab.scenarios import faults

    try:
        cells = faults.run(folder, scale, work, _values(options, "--only"), _values(options, "--fault"))
    except LabError as error:
        return _told(error, work)
    return 0 if all(cell.kept for cell in cells) else 1


def _values(options: Sequence[str], wanted: str) -> list[str]:
    return [value for name, _, value in (option.partition("=") for option in options) if name == wanted]


def _told(error: LabError, work: Path) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"lbnode lab: {error}\n    logs: {work / 'logs'}\n")
    return error.exit_code
