"""Reading and writing the maintenance files: `disable` and `agent-check` in the operator's directory.

A nonsensical or unreadable file never changes the node: the last good state stays, and the problem is told.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from lbnode.errors import LbnodeError, NotPermitted
from lbnode.maintenance.state import READY, AdminState, effective, parse
from lbnode.paths import Paths


@dataclass(frozen=True)
class Reading:
    """What the files say now; `problem` is empty when they could be read."""

    state: AdminState = READY
    problem: str = ""


def read(paths: Paths, role: str, last: AdminState = READY) -> Reading:
    """The node's admin state. `last` stays in force for what cannot be understood."""
    problem = ""
    state = last
    try:
        disabled = _first_line(paths.disable)
        try:
            state = effective(disabled, _understand(_first_line(paths.agent_check) or "", role))
        except LbnodeError as error:
            problem = f"{paths.agent_check}: {error}"
            if disabled is not None:
                state = effective(disabled, last)
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot read the maintenance files: {error}"
    return Reading(state, problem)


def write(paths: Paths, state: AdminState) -> None:
    """Puts the state into `agent-check`, by rename, and takes `disable` away when the state is ready.

    Raises NotPermitted when the directory cannot be written.
    """
    text = state.word if state.percent == 100 else f"{state.word} {state.percent}%"
    if state.maxconn is not None:
        text += f" maxconn:{state.maxconn}"
    if state.reason:
        text += f" # {' '.join(state.reason.split())}"
    fresh = paths.agent_check.with_name(".agent-check.new")
    try:
        paths.etc.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(paths.agent_check)
        if state.word == READY.word:
            paths.disable.unlink(missing_ok=True)
    except PermissionError as error:
        raise NotPermitted(f"cannot write {paths.agent_check}: {os.strerror(error.errno or 0)}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _first_line(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    return lines[0].strip() if lines else ""


def _understand(line: str, role: str) -> AdminState:
    state = parse(line)
    if role == "l4" and (state.percent != 100 or state.maxconn is not None):
        raise LbnodeError(f"cannot use {line!r} on an L4 node: it announces or it does not; a share means nothing here")
    return state
