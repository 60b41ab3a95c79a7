"""Runs one command on a user-mode-linux kernel: an ordinary process that is a whole machine, in 2 seconds.

The guest sees the host's files (as the user who started it), has every capability inside, and none outside. Its
kernel console goes to a file that is shown only when something fails; the command's output and errors come over two
further console lines and are copied out as they arrive. Ctrl-C and SIGTERM are handed to the command inside; a second
one, or a guest that ignores the first, ends the guest. Nothing stays behind: the guest is a process group of its own.
"""

import ctypes
import os
import resource
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lbnode.lab import guest, xstate
from lbnode.lab.errors import LabError
from lbnode.lab.signals import Relay

KERNEL = "linux.uml"
BOOT_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
PR_SET_PDEATHSIG = 1
MCONSOLE_MAGIC = 0xCAFEBABE  # arch/um/include/shared/mconsole.h
MCONSOLE_VERSION = 2


@dataclass(frozen=True)
class Limits:
    """What a guest may use: memory (a sparse file, touched as it is used) and time from boot to power-off."""

    memory_mb: int = 2048
    seconds: float | None = None


DEFAULT_LIMITS = Limits()


def run(command: guest.Command, limits: Limits = DEFAULT_LIMITS) -> int:
    """Boots a guest, runs the command in it and returns its exit status; 124 when it ran out of time.

    Raises LabError when user-mode-linux is not installed, panics, or does not come up.
    """
    kernel = shutil.which(KERNEL) or shutil.which(KERNEL, path=guest.SYSTEM_PATH)
    if kernel is None:
        raise LabError(f"cannot find {KERNEL}: apt-get install user-mode-linux")
    with tempfile.TemporaryDirectory(prefix="lbnode-uml-") as directory:
        work = Path(directory)
        guest.prepare(work, command)
        with Relay((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals:
            machine = _Machine(work, signals)
            try:
                machine.start(kernel, limits)
                return machine.follow(limits)
            except BrokenPipeError:  # nobody reads our output any more
                return 128 + signal.SIGPIPE
            finally:
                machine.end()


@dataclass
class _Machine:
    """One running guest, from its start to the last of its processes."""

    work: Path
    signals: Relay
    started: float = field(default_factory=time.monotonic)
    process: subprocess.Popen[bytes] | None = None
    lines: dict[int, int] = field(default_factory=dict)
    stop_by: float | None = None
    stopped_by: int = 0

    def start(self, kernel: str, limits: Limits) -> None:
        """Starts the kernel with its three console lines: the log, standard output, standard error."""
        out, out_guest = os.pipe()
        err, err_guest = os.pipe()
        self.lines = {out: 1, err: 2}
        console = os.open(self.work / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        env = {"PATH": guest.SYSTEM_PATH, "TMPDIR": guest.memory_directory(limits.memory_mb, os.environ)}
        if xstate.needed(Path("/proc/cpuinfo").read_text()):
            env["LD_PRELOAD"] = str(xstate.build(self.work))
        argv = [kernel, f"mem={limits.memory_mb}M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "noreboot"]
        argv += [f"init={self.work}/init", f"uml_dir={self.work}", "umid=guest"]
        argv += ["con=null", "ssl=null", f"con0=null,fd:{console}"]
        argv += [f"con1=null,fd:{out_guest}", f"con2=null,fd:{err_guest}"]
        try:
            self.process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(console, out_guest, err_guest),
                start_new_session=True,
                preexec_fn=_child_setup(),  # noqa: PLW1509 - the child only makes system calls
            )
        finally:
            for descriptor in (console, out_guest, err_guest):
                os.close(descriptor)

    def follow(self, limits: Limits) -> int:
        """Copies output until the guest is gone; returns the command's exit status."""
        with selectors.DefaultSelector() as selector:
            for line in (*self.lines, self.signals.fileno()):
                selector.register(line, selectors.EVENT_READ)
            remaining = set(self.lines)
            while remaining:
                for key, _ in selector.select(timeout=0.5):
                    if key.fd == self.signals.fileno():
                        self._relay_signals()
                    elif not self._copy(key.fd):
                        selector.unregister(key.fd)
                        remaining.discard(key.fd)
                if (early := self._given_up(limits)) is not None:
                    return early
        return self._status()

    def _copy(self, line: int) -> bool:
        data = os.read(line, 65536)
        view = memoryview(data)
        while view:
            view = view[os.write(self.lines[line], view) :]
        return bool(data)

    def _relay_signals(self) -> None:
        for number in self.signals.taken():
            if self.stop_by is None and (self.work / "booted").exists():
                self.stop_by = time.monotonic() + STOP_DEADLINE_S
                (self.work / "signal").write_text(f"{signal.Signals(number).name.removeprefix('SIG')}\n")
                _mconsole(self.work / "guest" / "mconsole", b"cad")
            else:
                self.stop_by = 0.0
            self.stopped_by = number

    def _given_up(self, limits: Limits) -> int | None:
        """The exit status of a guest that shall not go on, if so."""
        now = time.monotonic()
        if now - self.started > BOOT_DEADLINE_S and not (self.work / "booted").exists():
            raise self._failure(f"did not come up in {BOOT_DEADLINE_S:g} s")
        if self.stop_by is not None and now > self.stop_by:
            return 128 + self.stopped_by
        return 124 if limits.seconds is not None and now - self.started > limits.seconds else None

    def _status(self) -> int:
        status = guest.status(self.work)
        if status is None:
            came_up = (self.work / "booted").exists()
            raise self._failure("ended before its command did" if came_up else "did not come up")
        return status

    def _failure(self, what: str) -> LabError:
        console = (self.work / "console").read_text(errors="replace")
        return LabError(f"the user-mode-linux guest {what}; its console says:\n{guest.console_tail(console)}")

    def end(self) -> None:
        """Ends whatever is left: the kernel and the host processes that carry the guest's programs."""
        for line in self.lines:
            os.close(line)
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _child_setup() -> Callable[[], None]:
    """What the child does before it becomes the kernel: dies with us, may open many files (hostfs keeps them), and
    stays on one processor. The guest has only one, and passing a program between two doubles what a switch costs."""
    libc = ctypes.CDLL(None, use_errno=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = sorted(os.sched_getaffinity(0))
    processor = allowed[os.getpid() % len(allowed)]

    def setup() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.sched_setaffinity(0, {processor})

    return setup


def _mconsole(path: Path, request: bytes) -> None:
    """Sends one management request to the guest's kernel; its answer is of no interest."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.bind("")  # an abstract name: the kernel wants an address to answer to
        channel.sendto(struct.pack("=III512s", MCONSOLE_MAGIC, MCONSOLE_VERSION, len(request), request), str(path))
