"""Reading and writing the maintenance files: `disable` and `agent-check` in the operator's directory, and an
`agent-check` of this boot alone, in /run.

A nonsensical or unreadable file never changes the node: the last good state stays, and the problem is told. Since when
a node leaves is the time of the file that says so, so whoever looks, and whenever, finds the same.
"""

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lbnode.errors import LbnodeError, NotPermitted
from lbnode.maintenance.state import READY, AdminState, Mode, coming, effective, parse, together
from lbnode.paths import Paths


@dataclass(frozen=True)
class Reading:
    """What the files say now; `problem` is empty when they could be read; `next` is when they will mean something else
    by themselves, in seconds since 1970."""

    state: AdminState = READY
    problem: str = ""
    next: int | None = None


class Content(NamedTuple):
    """The first line of a file, and when it came to say so, in seconds since 1970: a rename counts (rename(2) changes
    st_ctime and not st_ctime), and nobody can set that time back."""

    line: str
    written: float


def read(paths: Paths, role: str, now: float, last: AdminState = READY) -> Reading:
    """The node's admin state at a moment. `last` stays in force for what cannot be understood."""
    problem = ""
    state = effective(None, last, now)
    try:
        disabled = _content(paths.disable)
        try:
            said = together([_said(paths.agent_check, role, now), _said(paths.boot_agent_check, role, now)])
            state = _effective(disabled, said, now)
        except LbnodeError as error:
            problem = str(error)
            if disabled is not None:
                state = _effective(disabled, last, now)
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot read the maintenance files: {error}"
    return Reading(state, problem, min(coming(state, now), default=None))


def _effective(disabled: Content | None, said: AdminState, now: float) -> AdminState:
    state = effective(disabled and disabled.line, said, now)
    if disabled is None:
        return state
    times = [disabled.written, *([said.since] if said.mode is not Mode.READY and said.since is not None else [])]
    return replace(state, since=min(times))


def _said(path: Path, role: str, now: float) -> AdminState:
    """What one agent-check file means. Raises LbnodeError when that makes no sense."""
    content = _content(path)
    if content is None:
        return READY
    try:
        return replace(effective(None, _understand(content.line, role), now), since=content.written)
    except LbnodeError as error:
        raise LbnodeError(f"{path}: {error}") from error


def write(paths: Paths, state: AdminState, this_boot: bool = False) -> None:
    """Puts the state into `agent-check`, by rename; for this boot alone, if that is wanted. A state that is ready takes
    everything else away.

    Raises NotPermitted when the directory cannot be written.
    """
    text = state.word if state.percent == 100 else f"{state.word} {state.percent}%"
    if state.maxconn is not None:
        text += f" maxconn:{state.maxconn}"
    if state.text:
        text += f" # {state.text}"
    file = paths.boot_agent_check if this_boot else paths.agent_check
    fresh = file.with_name(".agent-check.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(file)
        if state.word == READY.word:
            paths.disable.unlink(missing_ok=True)
            paths.boot_agent_check.unlink(missing_ok=True)
    except PermissionError as error:
        raise NotPermitted(f"cannot write {file}: {os.strerror(error.errno or 0)}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def forget(paths: Paths, reason: str) -> None:
    """Takes back what was written for this boot with this very reason."""
    with contextlib.suppress(OSError, UnicodeDecodeError, LbnodeError):
        content = _content(paths.boot_agent_check)
        if content is not None and parse(content.line).reason == reason:
            paths.boot_agent_check.unlink(missing_ok=True)


def _content(path: Path) -> Content | None:
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.read().splitlines()
            return Content(lines[0].strip() if lines else "", os.fstat(file.fileno()).st_ctime)
    except FileNotFoundError:
        return None


def _understand(line: str, role: str) -> AdminState:
    state = parse(line)
    if role == "l4" and (state.percent != 100 or state.maxconn is not None):
        raise LbnodeError(f"cannot use {line!r} on an L4 node: it announces or it does not; a share means nothing here")
    return state
