"""Reading and writing the maintenance files: `disable` and `agent-check` in the operator's directory.

A nonsensical or unreadable file never changes the node: the last good state stays, and the problem is told.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from lbnode.errors import LbnodeError, NotPermitted
from lbnode.maintenance.state import READY, AdminState, coming, effective, parse
from lbnode.paths import Paths


@dataclass(frozen=True)
class Reading:
    """What the files say now; `problem` is empty when they could be read; `next` is when they will mean something else
    by themselves, in seconds since 1970."""

    state: AdminState = READY
    problem: str = ""
    next: int | None = None


def read(paths: Paths, role: str, now: float, last: AdminState = READY) -> Reading:
    """The node's admin state at a moment. `last` stays in force for what cannot be understood."""
    problem = ""
    state = effective(None, last, now)
    try:
        disabled = _first_line(paths.disable)
        try:
            state = effective(disabled, _understand(_first_line(paths.agent_check) or "", role), now)
        except LbnodeError as error:
            problem = f"{paths.agent_check}: {error}"
            if disabled is not None:
                state = effective(disabled, last, now)
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot read the maintenance files: {error}"
    return Reading(state, problem, min(coming(state, now), default=None))


def write(paths: Paths, state: AdminState) -> None:
    """Puts the state into `agent-check`, by rename, and takes `disable` away when the state is ready.

    Raises NotPermitted when the directory cannot be written.
    """
    text = state.word if state.percent == 100 else f"{state.word} {state.percent}%"
    if state.maxconn is not None:
        text += f" maxconn:{state.maxconn}"
    if state.text:
        text += f" # {state.text}"
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
