"""Plays systemd inside the lab: starts programs in nodes, keeps their logs, starts them again when they die.

lbnode itself supervises nothing, so a lab needs someone who does. One thread owns all children: it sleeps until a
program dies (pidfds), is due for its next start, or somebody asks for something. Programs are known by "node/name",
their output is in `<logs>/<node>/<name>.log`, and every start and end is in `<logs>/supervisor.log`, with its time.
"""

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

# systemd's default RestartSec is 100 ms; doubling spares a lab's only processor when a program cannot run at all.
DELAY_S = 0.1
DELAY_MAX_S = 2.0
SETTLED_S = 5.0
NEEDS_POLL_S = 0.1
STOP_DEADLINE_S = 5.0


@dataclass(frozen=True)
class Program:
    """What to keep running. `run` is an argument list, or a Python function to fork (its result: exit status).

    `needs` is a path in the node without which there is nothing to start yet, a rendered configuration for instance.
    """

    node: Node
    name: str
    run: Sequence[str] | Callable[[], int | None]
    needs: str | None = None
    env: Mapping[str, str] | None = None

    @property
    def key(self) -> str:
        return f"{self.node.name}/{self.name}"


@dataclass(frozen=True)
class Event:
    """One line of the supervisor's log; `time` is seconds since the epoch."""

    time: float
    key: str
    what: str


@dataclass
class _Slot:
    """A program and where it stands: running (`pid`, `pidfd`), due for a start at `due`, or not wanted."""

    program: Program
    wanted: bool = True
    due: float = 0.0
    delay: float = DELAY_S
    pid: int | None = None
    pidfd: int = -1
    since: float = 0.0
    popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)


class Supervisor:
    """A context manager; leaving it ends every program in bounded time."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.events: list[Event] = []
        logs.mkdir(parents=True, exist_ok=True)
        self._slots: dict[str, _Slot] = {}
        self._changed = threading.Condition(threading.RLock())
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, program: Program) -> str:
        """Takes a program in; it starts as soon as what it needs is there. Returns its key, "node/name"."""
        with self._changed:
            if program.key in self._slots:
                raise LabError(f"cannot add {program.key}: there is one already")
            self._slots[program.key] = _Slot(program)
        os.eventfd_write(self._wake, 1)
        return program.key

    def start(self, key: str) -> None:
        """Wants a stopped program again."""
        with self._changed:
            slot = self._slot(key)
            slot.wanted, slot.due, slot.delay = True, 0.0, DELAY_S
        os.eventfd_write(self._wake, 1)

    def stop(self, key: str, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Ends a program (SIGTERM, SIGKILL after the deadline) and leaves it ended; returns when it is gone."""
        self._end([key], deadline_s)

    def kill(self, key: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal and returns the pid it went to; a program that dies of it is started again."""
        with self._changed:
            slot = self._slot(key)
            if slot.pid is None:
                raise LabError(f"cannot signal {key}: it is not running")
            signal.pidfd_send_signal(slot.pidfd, number)
            return slot.pid

    def pid(self, key: str) -> int | None:
        """The pid of a program, as the lab sees it; None while it is not running."""
        with self._changed:
            return self._slot(key).pid

    def keys(self) -> list[str]:
        """All programs, in the order they were added."""
        with self._changed:
            return list(self._slots)

    def log(self, key: str) -> Path:
        """Where a program's output goes."""
        return self.logs / f"{key}.log"

    def close(self) -> None:
        """Ends everything; safe to call twice."""
        if self._closing:
            return
        self._end(self.keys(), STOP_DEADLINE_S)
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._selector.close()
        os.close(self._wake)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _slot(self, key: str) -> _Slot:
        try:
            return self._slots[key]
        except KeyError:
            raise LabError(f"cannot find program {key}; there are {', '.join(self._slots) or 'none'}") from None

    def _end(self, keys: Sequence[str], deadline_s: float) -> None:
        with self._changed:
            slots = [self._slot(key) for key in keys]
            for slot in slots:
                slot.wanted = False
            for number, patience in ((signal.SIGTERM, deadline_s), (signal.SIGKILL, None)):
                for slot in slots:
                    if slot.pid is not None:
                        signal.pidfd_send_signal(slot.pidfd, number)
                if self._changed.wait_for(lambda: all(slot.pid is None for slot in slots), patience):
                    return

    def _loop(self) -> None:
        while not self._closing:
            with self._changed:
                idle = [slot.due for slot in self._slots.values() if slot.wanted and slot.pid is None]
            ready = self._selector.select(max(0.0, min(idle) - time.monotonic()) if idle else None)
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            with self._changed:
                for key, _ in ready:
                    if key.data is not None:
                        self._reap(key.data)
                for slot in self._slots.values():
                    if slot.wanted and slot.pid is None and slot.due <= time.monotonic():
                        self._try_start(slot)
                self._changed.notify_all()

    def _try_start(self, slot: _Slot) -> None:
        program = slot.program
        log = self.log(program.key)
        log.parent.mkdir(exist_ok=True)
        try:
            if program.needs is not None and not program.node.exists(program.needs):
                slot.due = time.monotonic() + NEEDS_POLL_S
                return
            if callable(program.run):
                slot.pid = program.node.fork(program.run, log)
            else:
                slot.popen = program.node.spawn(program.run, log, program.env)
                slot.pid = slot.popen.pid
        except (OSError, LabError) as error:
            self._note(slot, f"cannot start: {error}")
            self._postpone(slot)
            return
        slot.since = time.monotonic()
        slot.pidfd = os.pidfd_open(slot.pid)
        self._selector.register(slot.pidfd, selectors.EVENT_READ, slot)
        self._note(slot, f"started, pid {slot.pid}")

    def _reap(self, slot: _Slot) -> None:
        if slot.pid is None:
            return
        self._selector.unregister(slot.pidfd)
        os.close(slot.pidfd)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(slot.pid, 0)[1])
        except ChildProcessError:  # its node was closed first, which waits for all of its own
            status = -signal.SIGKILL
        slot.program.node.reaped(slot.pid)
        if slot.popen is not None:
            slot.popen.returncode = status
            slot.popen = None
        how = f"exited with status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        self._note(slot, f"{how}, pid {slot.pid}")
        slot.pid = None
        if time.monotonic() - slot.since > SETTLED_S:
            slot.delay = DELAY_S
        self._postpone(slot)

    def _postpone(self, slot: _Slot) -> None:
        slot.due = time.monotonic() + slot.delay
        slot.delay = min(slot.delay * 2, DELAY_MAX_S)

    def _note(self, slot: _Slot, what: str) -> None:
        event = Event(time.time(), slot.program.key, what)
        self.events.append(event)
        with (self.logs / "supervisor.log").open("a") as log:
            log.write(f"{event.time:.3f} {event.key} {event.what}\n")
