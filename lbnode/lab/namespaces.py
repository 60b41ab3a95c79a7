"""A node of the lab: a machine made of namespaces.

A node has its own network, mounts (private /run, /etc over the host's, /proc, /sys), host name and process numbers. A
*holder*, forked from the lab process, is its process 1. Everything that runs in the node runs below that: when the
holder ends, the kernel ends the rest. The holder ends when the lab says so, or when the lab process is gone however it
went, because its only job is to read from a pipe whose other end the lab alone has open.

Nothing here touches the namespaces of the lab process: whatever must happen inside a node happens in a thread that
enters it (`Node.call`). Sockets opened there stay in that node's network for good, processes started there are its.
"""

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lbnode.lab import libc, machine, program
from lbnode.lab.errors import LabError
from lbnode.lab.machine import Machine

T = TypeVar("T")

_lifelines: set[int] = set()


def _drop_lifelines() -> None:
    """In every forked child: else an agent that outlives the lab would keep all the holders alive."""
    for descriptor in _lifelines:
        with suppress(OSError):
            os.close(descriptor)
    _lifelines.clear()


os.register_at_fork(after_in_child=_drop_lifelines)


class Node:
    """One machine of the lab; a context manager that ends everything in it."""

    def __init__(self, name: str, private: bool = True) -> None:
        """Makes the namespaces; loopback is up when this returns. Raises LabError.

        `private`: with a /run and an /etc of its own.
        """
        self.name = name
        self._children: set[int] = set()
        try:
            self._machine: Machine | None = _in_thread(lambda: machine.make(name, private))
        except (OSError, LabError) as error:
            raise LabError(f"cannot make node {name}: {error}") from error
        _lifelines.add(self._machine.lifeline)

    @property
    def machine(self) -> Machine:
        """What the node is made of. Raises LabError when it is closed."""
        if self._machine is None:
            raise LabError(f"cannot use node {self.name}: it is closed")
        return self._machine

    @property
    def namespaces(self) -> Mapping[int, int]:
        """What a thread must enter to be in the node: flag of setns(2) -> descriptor. Mounts come last."""
        return self.machine.namespaces

    @property
    def holder(self) -> int:
        """The pid of the node's process 1, for nsenter(1) and /proc."""
        return self.machine.holder.pid

    def call(self, function: Callable[[], T]) -> T:
        """Runs `function` in a thread that is inside the node; returns what it returns, raises what it raises.

        Paths, sockets, processes and system settings are then the node's. The thread itself is not in the node's
        process namespace: /proc/self does not exist for it.
        """

        def inside() -> T:
            libc.unshare(libc.CLONE_FS)  # setns(2): a thread that shares its root directory cannot change mounts
            for flag, descriptor in namespaces.items():
                libc.setns(descriptor, flag)
            return function()

        namespaces = self.namespaces
        return _in_thread(inside)

    def spawn(
        self, argv: Sequence[str], log_path: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a program in the node, in a session of its own, its output appended to `log_path`.

        The program runs in the lab's current directory. Raises FileNotFoundError as subprocess.Popen does.
        """
        with log_path.open("ab") as log:
            return self.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """subprocess.Popen inside the node; when its end was waited for, say so to `reaped`."""
        settings = {"cwd": Path.cwd(), **options}
        process: subprocess.Popen[bytes] = self.call(lambda: program.start(argv, **settings))
        self._children.add(process.pid)
        return process

    def run(self, argv: Sequence[str], timeout: float = 30.0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end and returns its output (text). `options` are subprocess.run's, check too."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": Path.cwd(), "text": True, **options}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        check, given = settings.pop("check", False), settings.pop("input", None)
        # From a file: of a pipe, a program that is forked meanwhile would hold the other end open.
        with tempfile.TemporaryFile("w+") as source:
            if given is not None:
                source.write(given)
                source.seek(0)
                settings["stdin"] = source
            with self.call(lambda: program.start(argv, **pipes, **settings)) as process:
                try:
                    out, errors = process.communicate(timeout=timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
        done = subprocess.CompletedProcess[str](argv, process.returncode, out, errors)
        if check:
            done.check_returncode()
        return done

    def fork(self, function: Callable[[], int | None], log_path: Path) -> int:
        """Forks this very Python process into the node to run `function`, output appended to `log_path`.

        Returns the child's pid. Its exit status is what the function returns (None: 0), or 1 after a traceback.
        This saves the 0.3 to 3 s that starting Python and importing lbnode takes under user-mode-linux.
        """
        cwd = Path.cwd()
        with log_path.open("ab") as log:
            pid = self.call(lambda: program.fork(function, log.fileno(), cwd))
        self._children.add(pid)
        return pid

    def write(self, path: str | Path, text: str) -> None:
        """Writes a file as the node sees it, directories included, by rename."""

        def write() -> None:
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.new")
            fresh.write_text(text)
            fresh.rename(target)

        self.call(write)

    def read(self, path: str | Path) -> str:
        """Reads a file as the node sees it."""
        return self.call(lambda: Path(path).read_text())

    def exists(self, path: str | Path) -> bool:
        """Whether a path exists as the node sees it."""
        return self.call(lambda: Path(path).exists())

    def netns(self) -> int:
        """The node's network namespace as a descriptor, valid until the node is closed."""
        return self.namespaces[libc.CLONE_NEWNET]

    def reaped(self, pid: int) -> None:
        """Says that a child made by `spawn` or `fork` was waited for: its pid may soon be someone else's."""
        self._children.discard(pid)

    def close(self) -> None:
        """Ends everything in the node; safe to call twice."""
        made, self._machine = self._machine, None
        if made is None:
            return
        made.holder.kill()
        # pid_namespaces(7): process 1 is not gone before all the others are, and these are ours to wait for.
        for pid in tuple(self._children):
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        made.holder.wait()
        _lifelines.discard(made.lifeline)
        for descriptor in (made.lifeline, *made.namespaces.values()):
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_thread(function: Callable[[], T]) -> T:
    """Runs `function` in a thread of its own, because a thread that changed its namespaces is good for nothing else."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
