"""The text of a cluster file as plain data, with the place of every key and value. PURE.

Read from libyaml's events rather than through PyYAML's constructors: marks come along, deep nesting costs no recursion,
and every plain value stays the text that was written. YAML 1.1 would read `1:20` as 80, `010` as 8 and `no` as false;
the model, which knows what a key wants, turns text into numbers, flags and addresses instead.

Aliases, merge keys and tags are refused: the file is short, and a value should stand where it is used.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from lbnode.errors import Problem

Path = tuple[str | int, ...]
"""The way from the root to a value: keys, and indices from 0 inside lists."""

DEEPEST = 20
BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1, 5.4: libyaml counts lines so
NULLS = ("", "~", "null", "Null", "NULL")


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass
class Document:
    """`broken` holds the paths whose value is unknown, `lost` the mappings that may lack keys the operator meant."""

    data: Any = None
    empty: bool = True
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    duplicates: list[tuple[Path, Place]] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)
    lost: set[Path] = field(default_factory=set)
    unreadable: bool = False

    def refuse(self, place: Place, message: str, hint: str = "") -> None:
        self.problems.append(Problem(*place, message, hint))

    def place(self, path: Path, at_key: bool = False) -> Place:
        """Of the key or value at `path`; of the nearest thing around it when that is not in the file."""
        near = self.keys if at_key else self.values
        while path and path not in near:
            near, path = (self.keys, path) if path in self.keys else (near, path[:-1])
        return near.get(path) or self.values.get((), Place(1, 1))


@dataclass
class _Frame:
    """A mapping or list that is being read. Without a path, nothing in it is kept. `key` awaits its value."""

    path: Path | None
    box: dict[str, Any] | list[Any]
    awaits: bool = False
    key: str | None = None


class _Stop(Exception):
    """Reading ends here: the rest of the file is not worth reading."""


def read(text: str) -> Document:
    """Never raises: what is wrong with the text stands in `problems` and `duplicates`."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except _Stop:
        reader.document.unreadable = True
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        reader.document.unreadable = True
        reader.document.problems.append(_syntax(error, text))
    reader.document.problems = list(_inside(reader.document.problems, text))
    return reader.document


class _Reader:
    def __init__(self) -> None:
        self.document = Document()
        self.frames: list[_Frame] = []

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.NodeEvent):
            self._node(event, _begins(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            self.frames.pop()
        elif isinstance(event, yaml.DocumentStartEvent) and not self.document.empty:
            self.document.refuse(_begins(event), "a second document begins here", "one file, one cluster: remove '---'")
            raise _Stop

    def _node(self, event: yaml.NodeEvent, place: Place) -> None:
        frame = self.frames[-1] if self.frames else None
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            short = tag.replace("tag:yaml.org,2002:", "!!")
            self.document.refuse(place, f"the tag {short} has no meaning here", "remove it")
        if frame is not None and isinstance(frame.box, dict) and not frame.awaits:
            self._key(frame, event, place)
        else:
            self._value(frame, event, place)

    def _key(self, frame: _Frame, event: yaml.NodeEvent, place: Place) -> None:
        frame.awaits, frame.key = True, None
        if frame.path is not None and isinstance(event, yaml.ScalarEvent):
            frame.key = self._accept(frame.path, event, place)
        elif frame.path is not None:
            self.document.lost.add(frame.path)
            self.document.refuse(place, "a key must be plain text")
        if isinstance(event, yaml.CollectionStartEvent):
            self._open(_Frame(None, [] if isinstance(event, yaml.SequenceStartEvent) else {}), place)

    def _accept(self, parent: Path, event: yaml.ScalarEvent, place: Place) -> str | None:
        path = (*parent, event.value)
        if event.value == "<<" and not event.style:
            self.document.refuse(place, "merge keys (<<) are not read", "write the keys out")
        elif path in self.document.keys:
            self.document.duplicates.append((path, place))
        else:
            self.document.keys[path] = place
            return str(event.value)
        self.document.lost.add(parent)
        return None

    def _value(self, frame: _Frame | None, event: yaml.NodeEvent, place: Place) -> None:
        path = self._path(frame)
        value: Any = None
        if isinstance(event, yaml.ScalarEvent):
            value = None if not event.style and event.value in NULLS else event.value
        elif isinstance(event, yaml.CollectionStartEvent):
            value = [] if isinstance(event, yaml.SequenceStartEvent) else {}
            self._open(_Frame(path, value), place)
        elif path is not None:
            self.document.broken.add(path)
            self.document.refuse(place, f"the alias *{event.anchor} is not read", "write the value out")
        if path is not None:
            self.document.values[path] = place
            self._keep(frame, value)

    def _path(self, frame: _Frame | None) -> Path | None:
        """The path of the value that begins now; None when it is not kept."""
        if frame is None:
            return ()
        frame.awaits = False
        if frame.path is None or (isinstance(frame.box, dict) and frame.key is None):
            return None
        return (*frame.path, len(frame.box) if isinstance(frame.box, list) else str(frame.key))

    def _keep(self, frame: _Frame | None, value: Any) -> None:
        if frame is None:
            self.document.data, self.document.empty = value, False
        elif isinstance(frame.box, list):
            frame.box.append(value)
        else:
            frame.box[str(frame.key)] = value

    def _open(self, frame: _Frame, place: Place) -> None:
        self.frames.append(frame)
        if len(self.frames) > DEEPEST:
            self.document.refuse(place, "nested too deeply", "check the brackets")
            raise _Stop


def _begins(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _syntax(error: yaml.YAMLError | UnicodeEncodeError, text: str) -> Problem:
    """A syntax error in libyaml's words, with a hint for the mistakes that this file invites."""
    if isinstance(error, UnicodeEncodeError):
        return Problem(*spot(text, error.start), "not valid YAML: this character is not Unicode text")
    if isinstance(error, yaml.reader.ReaderError):
        # libyaml counts bytes here, and characters in marks.
        before = text.encode()[: error.position].decode(errors="ignore")
        return Problem(*spot(text, len(before)), f"not valid YAML: {error.reason}", "remove the character")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(1, 1, f"not valid YAML: {error}")
    mark, context = error.problem_mark, error.context_mark
    message = f"not valid YAML: {error.problem}"
    if error.context:
        message += f" {error.context}"
        message += f" that begins at line {context.line + 1}" if context and context.line != mark.line else ""
    return Problem(mark.line + 1, mark.column + 1, message, _syntax_hint(text, mark))


def _syntax_hint(text: str, mark: yaml.Mark) -> str:
    lines = BREAK.split(text)
    line = lines[min(mark.line, len(lines) - 1)]
    if line[mark.column : mark.column + 1] == "\t":
        return "indent with blanks, not tabs"
    if re.search(r"[0-9a-fA-F]*::", line):
        return "put quotes around an IPv6 address that begins or ends with '::'"
    return ""


def spot(text: str, index: int) -> Place:
    """The place of the character at `index`."""
    *before, last = BREAK.split(text[:index])
    return Place(len(before) + 1, len(last) + 1)


def _inside(problems: list[Problem], text: str) -> Iterator[Problem]:
    """libyaml places some errors on the line after the last; they belong to the end of the file."""
    lines = BREAK.split(text)
    if not lines[-1]:
        lines = lines[:-1] or lines
    for problem in problems:
        if problem.line > len(lines):
            yield Problem(len(lines), len(lines[-1]) + 1, problem.message, problem.hint)
        else:
            yield problem
