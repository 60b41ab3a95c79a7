"""The outside of `lbnode lab exec`: one command in a node of the running lab, with our input, output and signals."""

import fcntl
import os
import select
import shutil
import signal
import struct
import sys
import termios
import tty
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lbnode.lab import session, spool
from lbnode.lab.errors import LabError
from lbnode.lab.signals import Relay
from lbnode.lab.spool import Numberer, Request

STDIN, STDOUT, STDERR = 0, 1, 2


def execute(state: Path, node: str, argv: Sequence[str]) -> int:
    """Runs a command in a node and returns its exit status. Raises LabError when no lab is up, or it goes away.

    With a terminal at both our ends the command gets one too, so that shells and editors work.
    """
    if not (state / "ready").exists() or not session.is_up(state):
        raise LabError("cannot run a command: no lab is up (lbnode lab up TOPOLOGY)")
    sys.stdout.flush()
    terminal = _terminal_size()
    name = uuid.uuid4().hex
    hidden, directory = (state / "requests" / path for path in (f".{name}", name))
    hidden.mkdir()
    request = Request(node, tuple(argv), os.environ.get("TERM", "dumb"), terminal)
    (hidden / "request").write_bytes(request.to_json())
    hidden.rename(directory)
    try:
        with Relay((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals, _raw(terminal is not None):
            return _Copier(state, directory, signals).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _terminal_size() -> tuple[int, int] | None:
    """(rows, columns) when both our input and output are a terminal."""
    if not os.isatty(STDIN) or not os.isatty(STDOUT):
        return None
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(STDIN, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


@contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Our terminal passes every key on; the one in the lab gives them their meaning."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


@dataclass
class _Copier:
    """Moves bytes between us and the command's directory until its status is there."""

    state: Path
    directory: Path
    signals: Relay
    offsets: dict[str, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})

    def run(self) -> int:
        inputs, numbers = Numberer(self.directory, "stdin"), Numberer(self.directory, "signal")
        reading = True
        rounds = 0
        while True:
            present = spool.listing(self.directory)
            self._copy_output(present)
            if "status" in present:
                return int((self.directory / "status").read_text())
            rounds += 1
            if rounds % 50 == 0 and not session.is_up(self.state):
                raise LabError("cannot finish the command: the lab has ended")
            sources = [self.signals.fileno(), *([STDIN] if reading and not inputs.is_full() else [])]
            ready, _, _ = select.select(sources, [], [], spool.POLL_S)
            for number in self.signals.taken():
                numbers.put(str(number).encode())
            if STDIN in ready:
                piece = os.read(STDIN, spool.PIECE)
                inputs.put(piece)
                reading = bool(piece)

    def _copy_output(self, present: set[str]) -> None:
        for name, descriptor in (("stdout", STDOUT), ("stderr", STDERR)):
            if name not in present:
                continue
            with (self.directory / name).open("rb") as file:
                file.seek(self.offsets[name])
                while data := file.read(spool.PIECE):
                    self.offsets[name] += len(data)
                    while data:
                        data = data[os.write(descriptor, data) :]
