"""The inside of `lbnode lab up`: keeps a lab standing and runs in its nodes what `lbnode lab exec` asks for.

Runs where the lab runs, on the machine's kernel or in user-mode-linux, and talks to the outside through a spool
(`spool`). Each command has a thread that copies its input, output and signals until it ends.
"""

import os
import pty
import selectors
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from typing import Any, Protocol

from lbnode.lab import program, spool
from lbnode.lab.namespaces import Node
from lbnode.lab.signals import Relay
from lbnode.lab.spool import Numbered, Request


class Place(Protocol):
    """Where a command can run."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]: ...

    def reaped(self, pid: int) -> None: ...


class Around:
    """Around the nodes, where the lab's own process is: from there all nodes can be entered."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return program.start(argv, **options)

    def reaped(self, pid: int) -> None:
        """There is no list of them here."""


class HasNodes(Protocol):
    """What a lab must have to be served."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...


def serve(state: Path, build: Callable[[], AbstractContextManager[HasNodes]]) -> None:
    """Builds the lab, says `ready` with the nodes' names, serves until `stop` appears or SIGTERM comes."""
    requests = state / "requests"
    pause = threading.Event()
    with Relay((signal.SIGTERM, signal.SIGINT)) as signals, build() as lab:
        seen: set[str] = set()
        spool.publish(state / "ready", "\n".join(lab.nodes).encode())
        while "stop" not in spool.listing(state) and not signals.taken():
            present = {name for name in spool.listing(requests) if not name.startswith(".")}
            for name in sorted(present - seen):
                threading.Thread(target=_answer, args=(lab.nodes, requests / name), daemon=True).start()
            seen = present
            pause.wait(spool.POLL_S)


def _answer(nodes: Mapping[str, Node], directory: Path) -> None:
    try:
        request = Request.from_json((directory / "request").read_bytes())
        status = _execute(nodes, request, directory)
    except (OSError, ValueError, KeyError) as error:
        with suppress(OSError):
            spool.append(directory / "stderr", f"lbnode lab: cannot run this: {error}\n".encode())
        status = 69
    with suppress(FileNotFoundError):  # the client is gone, and its directory with it
        spool.publish(directory / "status", str(status).encode())


def _execute(nodes: Mapping[str, Node], request: Request, directory: Path) -> int:
    node: Place | None = Around() if request.node == spool.AROUND else nodes.get(request.node)
    if node is None:
        text = f"lbnode lab: cannot find node {request.node}: there are {', '.join(nodes)}\n"
        spool.append(directory / "stderr", text.encode())
        return 69
    try:
        command = _start_on_terminal(node, request) if request.terminal else _start_on_pipes(node, request)
    except FileNotFoundError as error:
        spool.append(directory / "stderr", f"lbnode lab: cannot start {error.filename}: {error.strerror}\n".encode())
        return 127
    try:
        return _Copier(command, directory).run()
    finally:
        node.reaped(command.process.pid)


@dataclass
class _Command:
    """A started command: where its input goes, and which descriptors carry its output to which file."""

    process: subprocess.Popen[bytes]
    stdin: int
    outputs: dict[int, str]


def _start_on_pipes(node: Place, request: Request) -> _Command:
    pipe = subprocess.PIPE
    process = node.popen(request.argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    streams = [stream for stream in (process.stdin, process.stdout, process.stderr) if stream is not None]
    stdin, stdout, stderr = (os.dup(stream.fileno()) for stream in streams)
    for stream in streams:
        stream.close()
    return _Command(process, stdin, {stdout: "stdout", stderr: "stderr"})


def _start_on_terminal(node: Place, request: Request) -> _Command:
    rows, columns = request.terminal or (24, 80)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        # setsid(1) makes the terminal the controlling one, and then becomes the command
        argv = ["setsid", "--ctty", *request.argv]
        env = {**os.environ, "TERM": request.term}
        process = node.popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return _Command(process, os.dup(ours), {ours: "stdout"})


@dataclass
class _Copier:
    """Moves bytes between a command and its directory until it has ended."""

    command: _Command
    directory: Path
    pending: bytes = b""
    input_open: bool = True
    inputs: Numbered = field(init=False)
    signals: Numbered = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = Numbered(self.directory, "stdin")
        self.signals = Numbered(self.directory, "signal")

    def run(self) -> int:
        """Returns the exit status; 128 + signal when one ended it."""
        os.set_blocking(self.command.stdin, False)
        with selectors.DefaultSelector() as selector:
            for descriptor in self.command.outputs:
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                ended = self.command.process.poll() is not None
                # Looked at once more after the end; a child left behind may keep the pipes open for ever.
                while ready := selector.select(0 if ended else spool.POLL_S):
                    for key, _ in ready:
                        if not self._copy_output(key.fd):
                            selector.unregister(key.fd)
                    if not ended:
                        break
                if ended:
                    break
                self._look()
        for descriptor in self.command.outputs:
            os.close(descriptor)
        self._close_input()
        status = self.command.process.returncode
        return status if status >= 0 else 128 - status

    def _copy_output(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, spool.PIECE)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        if data:
            spool.append(self.directory / self.command.outputs[descriptor], data)
        return bool(data)

    def _look(self) -> None:
        """Signals and input from the client; a client that is gone hangs up."""
        present = spool.listing(self.directory)
        numbers = [int(content) for content in self.signals.take(present)] if present else [signal.SIGHUP]
        for number in numbers:
            with suppress(ProcessLookupError):
                os.killpg(self.command.process.pid, number)
        if not self.pending:
            for piece in self.inputs.take(present):
                self.pending = piece
                if not piece:
                    self._close_input()
                break
        self._write_input()

    def _write_input(self) -> None:
        try:
            while self.pending and self.input_open:
                self.pending = self.pending[os.write(self.command.stdin, self.pending) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE, EIO: it does not listen any more
            self._close_input()
        if not self.input_open:
            self.pending = b""

    def _close_input(self) -> None:
        if self.input_open:
            self.input_open = False
            os.close(self.command.stdin)
