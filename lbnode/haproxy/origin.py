"""Where a line of haproxy.cfg comes from: its line in the template, and its place in the cluster file. PURE.

HAProxy names the lines of a file that nobody wrote. So when it rejects one, the file is rendered once more with each
line of the template marked, and what stands on the line, or around it, is looked for in the cluster file.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lbnode.config.positions import Document, Path, Place
from lbnode.config.words import at
from lbnode.haproxy import render
from lbnode.templates import Templates

_NAMED = re.compile(r"haproxy\.cfg[\w.]*:(\d+)\]")
_MARK = re.compile("\x01(\\d+)\x02")
_COMMENT = re.compile(r"{#.*?#}", re.DOTALL)
SHORTEST = 4
"""A shorter text says too little about where it is from."""


def lines_named(complaint: str) -> tuple[int, ...]:
    """The lines of haproxy.cfg that HAProxy complains about, each once."""
    return tuple(dict.fromkeys(int(number) for number in _NAMED.findall(complaint)))


def template_lines(templates: Templates, again: Callable[[Templates], str]) -> list[int | None]:
    """For each line of the file, the line of the template that began it. `again` renders with other templates."""
    source = templates.sources[render.TEMPLATE]
    traced = replace(templates, sources={**templates.sources, render.TEMPLATE: _traced(source)})
    marks = (_MARK.search(line) for line in again(traced).splitlines())
    return [int(mark[1]) if mark else None for mark in marks]


def cluster_place(config: str, number: int, document: Document) -> Place:
    """Where in the cluster file to look for what stands on a line of the configuration."""
    path = _path(config, number, document)
    return document.place(path, at_key=isinstance(at(document.data, path), dict))


def _path(config: str, number: int, document: Document) -> Path:
    """Of what stands on the line, or of what is around it."""
    lines = config.splitlines()
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    words = line.split()
    if words[:1] == ["server"] and len(words) > 1 and ("nodes", words[1]) in document.keys:
        return ("nodes", words[1])
    title = next((text for text in reversed(lines[:number]) if text[:1].isalpha()), "")
    around = _around(title.split(), document.data)
    found = [(len(text), path) for start in around for text, path in _leaves(at(document.data, start), start)]
    fits = [(length, path) for length, path in found if str(at(document.data, path)) in line and length >= SHORTEST]
    return max(fits, default=(0, around[0]))[1]


def _around(title: list[str], data: Any) -> list[Path]:
    """The parts of the cluster file that a section is made from, the most likely one first."""
    name = title[1] if len(title) > 1 else ""
    service, colon, rest = name.partition(":")
    if not colon:
        return [("haproxy",)]
    pool = rest.partition(":")[2] or at(data, ("services", service, "pool"))
    return [("pools", pool), ("services", service)] if title[0] == "backend" else [("services", service)]


def _leaves(data: Any, path: Path) -> Iterator[tuple[str, Path]]:
    """Every value, and every name that the operator chose."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _leaves(value, (*path, key))
    if not isinstance(data, dict | list) and data is not None:
        yield str(data), path


def _traced(source: str) -> str:
    """The template with a mark at the start of each line that is text."""
    hidden = {
        number
        for comment in _COMMENT.finditer(source)
        for number in range(source.count("\n", 0, comment.start()) + 1, source.count("\n", 0, comment.end()) + 2)
    }
    found = []
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        silent = number in hidden or line.lstrip().startswith("{%") or "digest" in line
        found.append(line if silent else f"\x01{number}\x02{line}")
    return "".join(found)
