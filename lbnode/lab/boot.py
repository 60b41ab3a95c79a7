"""One command on a kernel of its own: what user-mode-linux and QEMU have in common, from the start to the last process.

The guest sees the host's files (as the user who started it), has every capability inside, and none outside. Its
kernel console goes to a file that is shown only when something fails; the command's output and errors come over two
lines of their own and are copied out as they arrive. Ctrl-C and SIGTERM are handed to the command inside; a second
one, or a guest that ignores the first, ends the guest. Nothing stays behind: the guest is a process group of its own,
which ends with its first process, and with us, however we end.
"""

import ctypes
import os
import resource
import selectors
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from lbnode.lab import guest
from lbnode.lab.errors import LabError
from lbnode.lab.signals import Relay
from lbnode.lab.watchdog import Watchdog

STOP_DEADLINE_S = 15.0
PR_SET_PDEATHSIG = 1
END = b"\0"
"""The last byte of each line (init.sh). A line holds the next write back until the host has taken the one before, so
that a guest which could write it has lost nothing when it powers off."""


@dataclass(frozen=True)
class Limits:
    """What a guest may use: memory (taken as it is used) and time from boot to power-off."""

    memory_mb: int = 2048
    seconds: float | None = None


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Launch:
    """How the process that is the guest is started. `descriptors` are those it inherits, closed here afterwards.

    `one_processor`: it has only one, and passing it between two of the host's doubles what a switch costs. Guests that
    run side by side get one each, as far as they go.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    descriptors: Sequence[int] = ()
    one_processor: bool = False


class Kernel(Protocol):
    """A way to boot one: `uml` and `smp` have one each."""

    name: str
    script: Path
    boot_deadline_s: float

    def launch(self, work: Path, limits: Limits, out: int, err: int) -> Launch:
        """The guest's process; `out` and `err` are open for writing and become its lines. Raises LabError."""

    def hand_on(self, work: Path, name: str) -> None:
        """Has the guest's init send a signal ("TERM") to the command."""


def run(kernel: Kernel, command: guest.Command, limits: Limits = DEFAULT_LIMITS) -> int:
    """Boots a guest, runs the command in it and returns its exit status; 124 when it ran out of time.

    Raises LabError when something it needs is not installed, when it panics, or does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="lbnode-guest-") as directory:
        work = Path(directory)
        guest.prepare(work, command, kernel.script)
        with Relay((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals:
            running = _Guest(kernel, work, limits, signals)
            try:
                return running.follow(running.start())
            except BrokenPipeError:  # nobody reads our output any more
                return 128 + signal.SIGPIPE
            finally:
                running.end()


class Outlet:
    """Writes to one of our descriptors as fast as somebody reads there. What is put in never waits: an emulator whose
    output is not taken loses the rest of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: SimpleQueue[bytes] = SimpleQueue()
        self._broken: OSError | None = None
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Raises BrokenPipeError when nobody reads any more."""
        if self._broken:
            raise self._broken
        if data:
            self._waiting.put(data)

    def close(self) -> None:
        """Returns when all has been written. Raises as `put` does."""
        self._waiting.put(b"")
        self._thread.join()
        self.put(b"")

    def _write(self) -> None:
        try:
            while data := self._waiting.get():
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._broken = error


@dataclass
class _Guest:
    """One running guest, from its start to the last of its processes."""

    kernel: Kernel
    work: Path
    limits: Limits
    signals: Relay
    started: float = field(default_factory=time.monotonic)
    process: subprocess.Popen[bytes] | None = None
    watchdog: Watchdog | None = None
    lines: dict[int, int] = field(default_factory=dict)
    outlets: dict[int, Outlet] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    stop_by: float | None = None
    stopped_by: int = 0
    taken: socket.socket | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the guest with its console and its two lines; returns its first process."""
        out, out_guest = os.pipe()
        err, err_guest = os.pipe()
        self.lines = {out: 1, err: 2}
        console = os.open(self.work / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        inherited = [console, out_guest, err_guest]
        try:
            launch = self.kernel.launch(self.work, self.limits, out_guest, err_guest)
            inherited += launch.descriptors
            processors = os.sched_getaffinity(0)
            if launch.one_processor:
                processors, self.taken = _one_of(sorted(processors))
            self.process = subprocess.Popen(
                launch.argv,
                env=dict(launch.env),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=inherited,
                start_new_session=True,
                preexec_fn=_child_setup(processors),  # noqa: PLW1509 - the child only makes system calls
            )
            self.watchdog = Watchdog(self.process.pid, self.work)
            return self.process
        finally:
            for descriptor in inherited:
                os.close(descriptor)

    def follow(self, process: subprocess.Popen[bytes]) -> int:
        """Copies output until the guest is gone; returns the command's exit status."""
        self.outlets = {line: Outlet(ours) for line, ours in self.lines.items()}
        with selectors.DefaultSelector() as selector, _ending(process) as ended:
            for line in (*self.lines, self.signals.fileno(), ended):
                selector.register(line, selectors.EVENT_READ)
            remaining = set(self.lines)
            while remaining:
                for key, _ in selector.select(timeout=0.5):
                    if key.fd == self.signals.fileno():
                        self._relay_signals()
                    elif key.fd == ended:  # the kernel has; what is left of it would hold the lines open
                        selector.unregister(ended)
                        self._kill()
                    elif not self._copy(key.fd):
                        selector.unregister(key.fd)
                        remaining.discard(key.fd)
                if (early := self._given_up()) is not None:
                    return early
        for outlet in self.outlets.values():
            outlet.close()
        return self._status()

    def _copy(self, line: int) -> bool:
        data = os.read(line, 65536)
        if not data:
            return False
        view = memoryview(END * (line in self.held) + data)
        if data.endswith(END):
            self.held.add(line)
            view = view[: -len(END)]
        else:
            self.held.discard(line)
        self.outlets[line].put(bytes(view))
        return True

    def _relay_signals(self) -> None:
        for number in self.signals.taken():
            if self.stop_by is None and self._came_up():
                self.stop_by = time.monotonic() + STOP_DEADLINE_S
                self.kernel.hand_on(self.work, signal.Signals(number).name.removeprefix("SIG"))
            else:
                self.stop_by = 0.0
            self.stopped_by = number

    def _came_up(self) -> bool:
        return (self.work / "booted").exists()

    def _given_up(self) -> int | None:
        """The exit status of a guest that shall not go on, if so."""
        now, patience = time.monotonic(), self.kernel.boot_deadline_s
        if now - self.started > patience and not self._came_up():
            raise self._failure(f"did not come up in {patience:g} s")
        if self.stop_by is not None and now > self.stop_by:
            return 128 + self.stopped_by
        seconds = self.limits.seconds
        return 124 if seconds is not None and now - self.started > seconds else None

    def _status(self) -> int:
        status = guest.status(self.work)
        if status is None:
            raise self._failure("ended before its command did" if self._came_up() else "did not come up")
        return status

    def _failure(self, what: str) -> LabError:
        console = (self.work / "console").read_text(errors="replace")
        return LabError(f"the {self.kernel.name} guest {what}; its console says:\n{guest.console_tail(console)}")

    def end(self) -> None:
        """Ends whatever is left: the kernel and the host processes that carry the guest's programs."""
        for line in self.lines:
            os.close(line)
        if self.process is not None:
            self._kill()
            self.process.wait()
        if self.watchdog is not None:
            self.watchdog.dismiss()
        if self.taken is not None:
            self.taken.close()

    def _kill(self) -> None:
        """The whole group; its number is ours as long as nobody has waited for the first process."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """A descriptor that becomes readable when the process has ended."""
    descriptor = os.pidfd_open(process.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _one_of(processors: Sequence[int]) -> tuple[set[int], socket.socket | None]:
    """A processor that no other guest has taken, and what keeps it taken: a socket's name, which goes with us however
    we end. When all are taken, any, and nothing to keep."""
    for processor in processors:
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0lbnode-guest-processor-{processor}")
        except OSError:
            mark.close()
        else:
            return {processor}, mark
    return {processors[os.getpid() % len(processors)]}, None


def _child_setup(processors: Collection[int]) -> Callable[[], None]:
    """What the child does before it becomes the guest: dies with us, and may open many files (it keeps them)."""
    libc = ctypes.CDLL(None, use_errno=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def setup() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.sched_setaffinity(0, processors)

    return setup
