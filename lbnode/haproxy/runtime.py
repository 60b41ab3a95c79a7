"""HAProxy's sockets: the worker's runtime API and the statistics, read and commanded with a deadline.

Answers are text, and failures are only text: a command that must succeed goes through `order`, which knows what
success looks like. Statistics are CSV, because JSON takes 40 times as long; rows are read by column name, because
newer versions append columns.
"""

import csv
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from lbnode.errors import ApplyFailed, NotPermitted, NotReady

TIMEOUT_S = 5.0


class NotRunning(NotReady):
    """Nobody listens on the socket: the program does not run (caught by the driver, to tell it from a slow answer)."""


@dataclass(frozen=True)
class Processes:
    """The master's `show proc`: failed reloads since the last good one, the current workers' process ids, and those of
    earlier workers that still have sessions, each with its age (`0d00h01m13s`)."""

    failed: int
    workers: tuple[str, ...]
    old: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Runtime:
    """A client of one socket; every command is a connection of its own."""

    path: Path
    timeout_s: float = TIMEOUT_S

    def command(self, text: str, payload: str = "") -> str:
        """The answer to one command, as it is. `payload`: lines that go with it, none of them empty.

        Raises NotRunning, NotReady or NotPermitted when there is none.
        """
        if not text or "\n" in text or "\n\n" in payload:
            raise ValueError(f"not one command: {text!r}")
        if payload:
            text += f" <<\n{payload}\n"
        deadline = time.monotonic() + self.timeout_s
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self.timeout_s)
                connection.connect(str(self.path))
                connection.sendall(text.encode() + b"\n")
                # The master answers one command after the other until it sees the end.
                connection.shutdown(socket.SHUT_WR)
                return _read(connection, deadline).decode(errors="replace")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"cannot ask HAProxy: nobody listens on {self.path}") from error
        except PermissionError as error:
            raise NotPermitted(f"cannot ask HAProxy: {self.path} is for root") from error
        except OSError as error:
            raise NotReady(f"cannot ask HAProxy: {self.path} does not answer: {error}") from error

    def order(self, text: str, success: Iterable[str] = ("",)) -> None:
        """A command that must succeed: its answer, stripped, is one of `success`. Raises ApplyFailed otherwise."""
        answer = self.command(text).strip()
        if answer not in success:
            raise ApplyFailed(f"cannot {text}: {answer}")

    def info(self) -> dict[str, str]:
        """`show info`: name -> value."""
        pairs = (line.partition(":") for line in self.command("show info").splitlines())
        return {name: value.strip() for name, colon, value in pairs if colon}

    def stat(self, scope: str = "") -> list[dict[str, str]]:
        """`show stat`: one dict a row, by column. `scope` narrows it, in HAProxy's words: `enabler 4 -1`."""
        return rows(self.command(f"show stat {scope}".strip()))

    def servers_state(self, backend: str = "") -> list[dict[str, str]]:
        """`show servers state`, of one backend or of all: one dict a server, by column."""
        lines = self.command(f"show servers state {backend}".strip()).split("\n")
        if len(lines) < 2 or lines[0].strip() != "1":
            raise NotReady(f"cannot read the servers' states: HAProxy says {lines[0]!r}")
        columns = lines[1].removeprefix("#").split()
        return [dict(zip(columns, line.split(), strict=False)) for line in lines[2:] if line.strip()]

    def processes(self) -> Processes:
        """`show proc`, of a master's socket."""
        answer = self.command("show proc")
        failed = re.search(r"\bmaster\b.*\[failed: (\d+)\]", answer)
        if failed is None:
            raise NotReady(f"cannot read HAProxy's processes: it says {answer.strip()!r}")
        current, _, older = answer.partition("# old workers")
        workers = tuple(re.findall(r"^(\d+)\s+worker\b", current, re.MULTILINE))
        old = re.findall(r"^(\d+)\s+worker\s+\d+\s+(\S+)", older.partition("# programs")[0], re.MULTILINE)
        return Processes(int(failed[1]), workers, tuple(old))


@dataclass(frozen=True)
class HttpStats:
    """The same statistics over HTTP, from a page such as `http://127.0.0.1:8404/stats`."""

    url: str
    timeout_s: float = TIMEOUT_S

    def stat(self) -> list[dict[str, str]]:
        """As `Runtime.stat`. Raises NotReady when the page does not answer with statistics."""
        import requests

        try:
            answer = requests.get(f"{self.url};csv", timeout=self.timeout_s)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise NotReady(f"cannot read statistics from {self.url}: {error}") from error
        return rows(answer.text)


def rows(text: str) -> list[dict[str, str]]:
    """HAProxy's CSV as rows by column. Raises NotReady when it is not that."""
    if not text.startswith("# pxname,"):
        raise NotReady(f"cannot read statistics: HAProxy says {text.strip()[:100]!r}")
    # Each line ends with a comma, which makes a column without a name.
    return [
        {name: value for name, value in row.items() if name}
        for row in csv.DictReader(StringIO(text.removeprefix("# ")))
    ]


def _read(connection: socket.socket, deadline: float) -> bytes:
    parts: list[bytes] = []
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
