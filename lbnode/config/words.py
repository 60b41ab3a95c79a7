"""What is wrong with the shape of the data, in an operator's words. PURE.

pydantic finds every wrong key and value in one go; here its findings become short sentences with a hint, each with the
path of the key or value it is about. Nothing of pydantic's own wording reaches the operator.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbnode.config.mistakes import Mistake, WrongNumber, shown
from lbnode.config.model import Cluster, Model
from lbnode.config.positions import Path

NAMED: dict[Path, str] = {
    ("nodes",): "node",
    ("services",): "service",
    ("pools",): "pool",
    ("bgp", "peers"): "BGP peer",
    ("bgp", "unnumbered"): "BGP peer",
    ("dns", "servers"): "DNS server",
    ("dns", "names"): "DNS name",
}
SINGULAR = {
    "ports": "port",
    "vips": "VIP",
    "nodes": "node",
    "communities": "community",
    "large_communities": "large community",
    "announceable": "network",
}
MISSING = object()
BUDGET = 50_000
"""How many comparisons one run spends on suggestions: a file with 10,000 wrong names is still checked in seconds."""


class Finding(NamedTuple):
    """One mistake. `at_key`: its place is the key at `path`, not the value; `first`: where the other one stands."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    first: Path | None = None


class Suggestions:
    """ "did you mean": the nearest of some names, until the budget is spent."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget

    def nearest(self, word: object, names: Collection[str]) -> str:
        if not isinstance(word, str) or len(word) > 100 or self.budget < len(names):
            return ""
        self.budget -= len(names)
        by_lower = {name.lower(): name for name in names}
        close = get_close_matches(word.lower(), by_lower, n=1)
        return by_lower[close[0]] if close else ""

    def hint(self, word: object, names: Collection[str], otherwise: str = "") -> str:
        """`otherwise`, when nothing is near enough."""
        near = self.nearest(word, names)
        return f"did you mean '{near}'?" if near else otherwise


@dataclass
class Faults:
    """What was found, the paths whose value is unknown, and the mappings that may lack keys the operator meant."""

    findings: list[Finding] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)
    lost: set[Path] = field(default_factory=set)


def sections(model: type[Model] = Cluster, path: Path = ()) -> dict[Path, type[Model]]:
    """Every model of the file by its path, with "*" where the operator chooses the name."""
    found = {path: model}
    for name, info in model.model_fields.items():
        kind = _certain(info.annotation)
        if get_origin(kind) is dict:
            found |= sections(get_args(kind)[1], (*path, name, "*"))
        elif isinstance(kind, type) and issubclass(kind, Model):
            found |= sections(kind, (*path, name))
    return found


def _certain(kind: Any) -> Any:
    """A type without the "or nothing" of a key that may be left out."""
    there = [choice for choice in get_args(kind) if choice is not NoneType]
    return there[0] if isinstance(kind, UnionType) and len(there) == 1 else kind


SECTIONS = sections()


def repeated(items: Iterable[tuple[Path, object]], message: str) -> Iterator[Finding]:
    """One finding for each entry of a list that stands in it before; `message` has a place for it."""
    seen: dict[object, Path] = {}
    for path, value in items:
        if value in seen:
            yield Finding(path, message.format(value), "remove one", first=seen[value])
        seen.setdefault(value, path)


def model_at(path: Path) -> type[Model] | None:
    """The model of the mapping at `path`."""
    for pattern, model in SECTIONS.items():
        if len(pattern) == len(path) and all(want in ("*", part) for want, part in zip(pattern, path, strict=True)):
            return model
    return None


def fields_at(path: Path) -> list[str]:
    """The keys that the mapping at `path` knows."""
    model = model_at(path)
    return list(model.model_fields) if model else []


def subject(path: Path) -> str:
    """What stands at a path: `node 'l4-1'`, `'vips'`, `item 2 of 'ports'`."""
    if not path:
        return "the file"
    if path[:-1] in NAMED:
        return f"{NAMED[path[:-1]]} {shown(path[-1])}"
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {shown(path[-2])}"
    return shown(path[-1])


def noun(path: Path) -> str:
    """What the value at a path is called before the value itself: `port`, `weight`, `local_asn`."""
    last = next(str(part) for part in reversed(path) if isinstance(part, str))
    return SINGULAR.get(last, last)


def faults(error: ValidationError, data: Any, suggestions: Suggestions) -> Faults:
    """All mistakes in `data` that pydantic found, without those that only follow from another."""
    found = Faults()
    details = [(_path(detail, data), detail) for detail in error.errors(include_url=False, include_input=False)]
    missing = {path for path, detail in details if detail["type"] == "missing"}
    above = {path[:end] for path, _ in details for end in range(len(path))}
    for path, detail in details:
        if detail["type"] == "extra_forbidden":
            near, finding = _unknown(path, data, suggestions)
            found.findings.append(finding)
            found.lost.add(path[:-1])
            missing.discard((*path[:-1], near))
        elif detail["type"] == "too_short" and path in above:
            continue  # pydantic counts only the good entries of a list
        elif detail["type"] != "missing":
            if path == tuple(detail["loc"]):
                found.broken.add(path)
            found.findings.append(_wrong(path, detail, data, suggestions))
    found.broken |= {path for path, detail in details if detail["type"] == "missing"}
    found.findings += [_missing(path) for path in missing]
    return found


def _path(detail: ErrorDetails, data: Any) -> Path:
    """pydantic marks a wrong key of a mapping by a last step "[key]"."""
    path = tuple(detail["loc"])
    if path[-1:] != ("[key]",) or detail["type"] == "extra_forbidden" or at(data, path, default=MISSING) is not MISSING:
        return path
    return path[:-1]


def at(data: Any, path: Path, default: Any = None) -> Any:
    """The value at a path; `default` when the path leads nowhere."""
    for part in path:
        inside = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if not inside:
            return default
        data = data[part]
    return data


def _missing(path: Path) -> Finding:
    model = model_at(path[:-1])
    about = (model.model_fields[str(path[-1])].description if model else "") or ""
    hint = f"{path[-1]}: {about}".rstrip(". ")
    return Finding(path[:-1], f"{subject(path[:-1])} lacks '{path[-1]}'", hint, at_key=True)


def _unknown(path: Path, data: Any, suggestions: Suggestions) -> tuple[str, Finding]:
    """The finding, and the key that was meant, if that can be guessed."""
    known = fields_at(path[:-1])
    free = [name for name in known if name not in at(data, path[:-1], {})]
    near = suggestions.nearest(path[-1], free)
    hint = f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}"
    return near, Finding(path, f"unknown key {shown(path[-1])}", hint, at_key=True)


def _wrong(path: Path, detail: ErrorDetails, data: Any, suggestions: Suggestions) -> Finding:
    value, cause = at(data, path), detail.get("ctx", {}).get("error")
    if path != tuple(detail["loc"]):
        return Finding(path, str(cause or detail["msg"]), getattr(cause, "hint", ""), at_key=True)
    shape = _wrong_shape(path, detail["type"], value)
    if shape is not None:
        return shape
    if detail["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        message = f"{noun(path)} {shown(value)} is not one of {', '.join(allowed)}"
        return Finding(path, message, suggestions.hint(value, allowed))
    if isinstance(cause, WrongNumber):
        return Finding(path, f"{noun(path)} {cause}", cause.hint)
    if isinstance(cause, Mistake):
        return Finding(path, str(cause), cause.hint)
    return Finding(path, f"{subject(path)}: {detail['msg']}")


def _wrong_shape(path: Path, kind: str, value: Any) -> Finding | None:
    """A mapping, a list or a single value where something else belongs."""
    name = subject(path)
    if value is None:
        return Finding(path, f"{name} has no value", "write one, or leave the key out")
    if kind == "too_short":
        return Finding(path, f"{name} is empty", "it needs at least one entry")
    if kind in ("model_type", "dict_type"):
        keys = ", ".join(fields_at(path)) or "names"
        return Finding(path, f"{name} must be a mapping, not {shown(value)}", f"its keys: {keys}")
    if kind == "tuple_type":
        hint = "" if isinstance(value, dict) else f"write [{value}]"
        return Finding(path, f"{name} must be a list, not {shown(value)}", hint)
    if isinstance(value, dict | list):
        return Finding(path, f"{name} must be a single value, not {shown(value)}")
    return None
