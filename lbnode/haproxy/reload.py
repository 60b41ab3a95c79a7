"""A reload through the master's socket, verified: it is done when the worker itself says that it runs the new file.

The master replaces itself, reads the file, and starts a new worker beside the old one, which keeps serving if that
fails. HAProxy 2.6 answers `reload` with nothing, before it is done; since 2.7 it answers `Success=0|1` and the log. So
the answer is only believed when it says no; otherwise the master's count of failures and the worker decide.
"""

import re
import time
from threading import Event

from lbnode.errors import ApplyFailed, NotReady
from lbnode.haproxy import program, render
from lbnode.haproxy.runtime import Processes, Runtime
from lbnode.paths import Paths

WAIT_S = 15.0
"""10,000 servers in one backend take 1.5 s."""

_POLL_S = 0.01
_BUSY_S = 2.0


def reload(paths: Paths, wait_s: float = WAIT_S) -> None:
    """Makes HAProxy run the configuration file as it is now.

    Raises ApplyFailed when it did not take (the old configuration still serves), NotRunning or NotReady when the
    master's socket does not answer.
    """
    wanted = render.digest(paths.haproxy_config.read_text(encoding="utf-8"))
    deadline, pause = time.monotonic() + wait_s, Event()
    master = Runtime(paths.haproxy_master_socket, wait_s)
    worker = Runtime(paths.haproxy_socket, wait_s)
    before = _idle(master, min(deadline, time.monotonic() + _BUSY_S))
    answer = master.command("reload")
    if re.search(r"^Success=0", answer, re.MULTILINE):
        raise _failure(paths, program.errors(answer))
    while time.monotonic() < deadline:
        try:
            now = master.processes()
            if now.failed > before.failed:
                raise _failure(paths)
            if _taken(now, before, worker.info(), wanted):
                return
        except NotReady:
            pass  # one of them replaces itself
        pause.wait(_POLL_S)
    raise ApplyFailed(f"cannot reload HAProxy: its worker does not run the new configuration after {wait_s:g} s")


def _idle(master: Runtime, deadline: float) -> Processes:
    """The processes before a reload. A master of 2.6 refuses connections for some 10 ms after its worker answers."""
    pause = Event()
    while True:
        try:
            return master.processes()
        except NotReady:
            if time.monotonic() >= deadline:
                raise
        pause.wait(_POLL_S)


def _taken(now: Processes, before: Processes, info: dict[str, str], wanted: str) -> bool:
    # Until the old worker stops listening, it may be the one that answers.
    pid = info.get("Pid", "")
    return pid in now.workers and pid not in before.workers and running_digest(info) == wanted


def running_digest(info: dict[str, str]) -> str:
    """Which configuration a worker runs, from its `show info`; empty when it is not one of lbnode's."""
    return render.digest(f"description {info.get('description', '')}")


def _failure(paths: Paths, said: str = "") -> ApplyFailed:
    reason = said or program.check(paths.haproxy_config)
    # Sockets are not bound by a check, so that an address in use shows up only now.
    reason = reason or "the file is valid, so a bind or a limit is in its way: HAProxy's log names it"
    return ApplyFailed(f"cannot reload HAProxy, the old configuration still serves: {reason}")
