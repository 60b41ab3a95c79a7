"""From the text of a cluster file to a `Cluster`, or to every mistake in it, each at its line and column."""

from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from lbnode.config import crosscheck, positions
from lbnode.config.drafting import draft
from lbnode.config.model import Cluster
from lbnode.config.positions import Document
from lbnode.config.words import Faults, Finding, Suggestions, faults, subject
from lbnode.errors import ConfigError, Missing, NotPermitted, Problem

ASK = "the reference of the cluster file has an example"


def load(path: Path) -> Cluster:
    """Raises ConfigError with every problem; Missing or NotPermitted when the file cannot be read at all."""
    try:
        content = path.read_bytes()
    except PermissionError as error:
        raise NotPermitted(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise Missing(f"cannot read {path}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        problem = Problem(*positions.spot(before, len(before)), "this byte is not UTF-8", "save it as UTF-8", str(path))
        raise ConfigError([problem]) from error
    return parse(text, str(path))


def parse(text: str, file: str = "cluster.yaml") -> Cluster:
    """The cluster that `text` describes. Raises ConfigError, and nothing else; `file` goes into the messages."""
    document = positions.read(text)
    if document.unreadable:
        _refuse(document.problems, file)
    if document.empty or document.data is None:
        _refuse([*document.problems, Problem(1, 1, "the file is empty", ASK)], file)
    if not isinstance(document.data, dict):
        message = "the file must be a mapping with the keys bgp and nodes"
        _refuse([*document.problems, Problem(*document.place(()), message, ASK)], file)
    suggestions = Suggestions()
    cluster, found = _validate(document.data, suggestions)
    broken, lost = document.broken | found.broken, document.lost | found.lost
    # An alias was refused already: what its absence makes wrong is no news.
    findings = [finding for finding in found.findings if not _follows(finding, document)]
    findings += crosscheck.findings(draft(document.data, broken, lost), suggestions)
    problems = [*document.problems, *_duplicates(document), *(_located(finding, document) for finding in findings)]
    if problems or cluster is None:
        _refuse(problems, file)
    return cluster


def schema() -> dict[str, Any]:
    """The JSON Schema of the cluster file."""
    described = Cluster.model_json_schema()
    for part in (described, *described["$defs"].values()):
        for value in part["properties"].values():
            if "patternProperties" in value:
                value["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _validate(data: dict[str, Any], suggestions: Suggestions) -> tuple[Cluster | None, Faults]:
    try:
        return Cluster.model_validate(data), Faults()
    except ValidationError as error:
        return None, faults(error, data, suggestions)


def _follows(finding: Finding, document: Document) -> bool:
    return not finding.at_key and finding.path in document.broken


def _duplicates(document: Document) -> list[Problem]:
    named = "{} is named twice; first at line {}"
    written = "{} is written twice; first at line {}"
    return [
        Problem(*place, (named if subject(path)[0] != "'" else written).format(subject(path), document.keys[path].line))
        for path, place in document.duplicates
    ]


def _located(finding: Finding, document: Document) -> Problem:
    place = document.place(finding.path, finding.at_key)
    message = finding.message
    if finding.first is not None:
        message += f", line {document.place(finding.first).line}"
    return Problem(*place, message, finding.hint)


def _refuse(problems: list[Problem], file: str) -> NoReturn:
    unique = {(p.line, p.column, p.message): p for p in problems}
    raise ConfigError([Problem(p.line, p.column, p.message, p.hint, file) for p in unique.values()])
