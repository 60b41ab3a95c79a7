"""The relay's end of ExaBGP's pipe: commands go out on standard output, answers and events come in on standard input.

ExaBGP blocks, sessions and all, until its hold timers expire, when an API process does not read what it writes
(reactor/api/processes.py, `write`); so input is read whenever this end waits. Answers carry no number and events stand
between them, so nothing is sent before everything sent has been answered.
"""

import os
import select
import time
from collections.abc import Callable

ANSWER_S = 60.0
"""When ExaBGP has said nothing for so long, it is stuck, and its answer is not awaited any more."""
SURE_S = 3.0
"""One that has never answered, and is silent for so long after the lines of a query, does not answer at all."""
SILENT_S = 0.2
"""How long such a one is given for the lines of a query."""


LONGEST = 1 << 20
"""Bytes of a line."""


class Pipe:
    """`on_event` is called with each JSON line. The end of the input raises EOFError from every method that waits."""

    def __init__(self, on_event: Callable[[str], None]) -> None:
        self.on_event = on_event
        self.poll = select.poll()
        self.readers: dict[int, Callable[[], None]] = {}
        self.add_reader(0, self._hear)
        self.rest = b""
        self.lines: list[str] = []
        self.answers: list[str] = []
        self.expected = 0
        self.answered: bool | None = None
        self.owed = 0
        self.heard = 0.0

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """`call` is called, while this end waits, when there is something to read from `fd`."""
        self.readers[fd] = call
        self.poll.register(fd, select.POLLIN)

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]
        self.poll.unregister(fd)

    def wait(self, seconds: float | None) -> None:
        """Until something was read, or for so long; None: for ever."""
        for fd, _ in self.poll.poll(None if seconds is None else seconds * 1000 + 1):
            if fd in self.readers:
                self.readers[fd]()

    def show(self, command: str) -> list[str]:
        """The lines that answer a query."""
        self.ask([command])
        return self.lines

    def ask(self, commands: list[str]) -> list[str]:
        """Sends commands and waits for `done` or `error` to each; "" stands for an answer that did not come in time.

        An answer that comes late is counted off then. Where ExaBGP has been told not to answer (exabgp_api_ack=false),
        only queries are waited for, until no more lines come.
        """
        self.lines, self.answers, self.expected = [], [], len(commands)
        _send("".join(f"{command}\n" for command in commands).encode())
        self.heard = time.monotonic()
        query = commands[0].startswith("show ")
        while len(self.answers) < len(commands):
            left = self.heard + self._patience(query) - time.monotonic()
            if left <= 0:
                break
            self.wait(left)
        self.expected = 0
        missing = len(commands) - len(self.answers)
        if missing < len(commands):
            self.answered = True
        elif self.answered is None:
            self.answered = False
        self.owed += missing if self.answered else 0
        return self.answers + [""] * missing

    def _patience(self, query: bool) -> float:
        if self.answered is None:
            return SURE_S if self.lines else ANSWER_S
        if self.answered:
            return ANSWER_S
        return SILENT_S if query else 0

    def _hear(self) -> None:
        """Sorts what ExaBGP says: events, answers, and the lines before an answer."""
        data = os.read(0, 65536)
        if not data:
            raise EOFError
        self.heard = time.monotonic()
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest if len(self.rest) < LONGEST else b""  # no line of ExaBGP's
        for line in (line.decode(errors="replace") for line in lines):
            if line.startswith("{"):
                self.on_event(line)
            elif self.owed:
                self.owed -= line in ("done", "error")
            elif len(self.answers) < self.expected:  # else nobody has asked
                (self.answers if line in ("done", "error") else self.lines).append(line)


def _send(data: bytes) -> None:
    """ExaBGP's end of the pipe is the end of the relay too: EOFError."""
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise EOFError from None
