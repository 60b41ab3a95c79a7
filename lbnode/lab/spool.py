"""How commands get into a running lab and their output out of it: files in a directory both sides see.

Host and guest of user-mode-linux share a file system and nothing else (a socket or a fifo there connects nobody), so
a request is a directory that appears by rename:

    requests/<id>/request        node, arguments, terminal size                     written by the client
                  stdin.0 ...    input in pieces; an empty one is its end; the lab removes what it has taken
                  signal.0 ...   signal numbers
                  stdout stderr  appended to by the lab: opened and closed each time, for only then does the guest's
                                 page cache reach the host
                  status         exit status, last

Whoever reads polls; POLL_S is a compromise between latency and a guest's only processor.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

POLL_S = 0.02
PIECE = 65536
PIECES_AHEAD = 8
AROUND = ""
"""In place of a node's name: the command runs around the nodes, where they can all be entered."""


@dataclass(frozen=True)
class Request:
    """One command for one node. `terminal` is (rows, columns) when it shall have one."""

    node: str
    argv: tuple[str, ...]
    term: str = "dumb"
    terminal: tuple[int, int] | None = None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        raw = json.loads(text)
        terminal = tuple(raw["terminal"]) if raw["terminal"] else None
        return cls(raw["node"], tuple(raw["argv"]), raw["term"], terminal)


def publish(path: Path, content: bytes) -> None:
    """A whole file at once, by rename."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.rename(path)


def append(path: Path, content: bytes) -> None:
    """Makes content visible on the other side at once."""
    with path.open("ab") as file:
        file.write(content)


@dataclass
class Numbered:
    """The reading end of numbered files (`stdin.0`, `stdin.1`, ...): each is taken once, in order."""

    directory: Path
    stem: str
    number: int = 0

    def take(self, present: set[str]) -> Iterator[bytes]:
        """The contents of the files that are there (`present`: a listing of the directory), which are removed."""
        while (name := f"{self.stem}.{self.number}") in present:
            path = self.directory / name
            content = path.read_bytes()
            path.unlink()
            self.number += 1
            yield content


@dataclass
class Numberer:
    """The writing end of numbered files."""

    directory: Path
    stem: str
    number: int = 0

    def put(self, content: bytes) -> None:
        publish(self.directory / f"{self.stem}.{self.number}", content)
        self.number += 1

    def is_full(self) -> bool:
        """Whether the reader is so far behind that the writer should wait."""
        return os.path.exists(self.directory / f"{self.stem}.{self.number - PIECES_AHEAD}")  # noqa: PTH110 - hot


def listing(directory: Path) -> set[str]:
    """The names in a directory; none when it is gone."""
    try:
        return set(os.listdir(directory))  # noqa: PTH208 - hot
    except FileNotFoundError:
        return set()
