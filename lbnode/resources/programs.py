"""Rows of the programs beside us: their generated files, and whether they run with them."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lbnode.resources.row import Row


@dataclass(frozen=True, slots=True)
class File(Row):
    """A generated file. `checker` names the program that must accept the content before it replaces the old; `group`,
    who else may read it, if this host has such a group: "" for the group of whoever writes it."""

    KIND: ClassVar[str] = "file"
    RANK: ClassVar[int] = 40
    KEY: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    content: str = field(repr=False)
    mode: int = 0o644
    group: str = ""
    checker: Literal["", "haproxy", "exabgp"] = field(default="", compare=False)

    def settings(self) -> dict[str, object]:
        return {"lines": self.content.count("\n"), "mode": f"{self.mode:04o}", "group": self.group}


@dataclass(frozen=True, slots=True)
class Running(Row):
    """A program that runs with the generated configuration. `config` is the digest written into that file: for HAProxy,
    of what only a reload can change; `parts` are those of its sections, by title."""

    KIND: ClassVar[str] = "running"
    RANK: ClassVar[int] = 50
    KEY: ClassVar[tuple[str, ...]] = ("program",)

    program: Literal["haproxy", "exabgp"]
    config: str
    parts: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
