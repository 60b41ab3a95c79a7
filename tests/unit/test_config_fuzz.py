"""Whatever stands in the file: a cluster, or problems that have a place inside the file. Nothing else."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from test_config_structure import GOOD

from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.errors import ConfigError

LINES = GOOD.splitlines()
SHAPES = ["", "~", "{}", "[]", "[~]", "[[x]]", "{a: b}", "&a x", "*a", "<<: *a", "!!int 1", "[k]: 1", "'[key]'", "- x"]
MARKS = [
    "---",
    "...",
    "%YAML 1.1",
    "? x",
    "| ",
    "> ",
    "'",
    '"',
    "{",
    "[",
    "\t",
    "#",
    "\x85",
    "\u2028",
    "\x00",
    "\ud800",
]
KNOWN = ["nodes:", "  l4-1:", "role", "l7", "ipv4", "l7-1", "web", "pool:", "ports: [1, 1]", "through: backend", "\r"]
VALUES = [
    "0",
    "-1",
    "1e999",
    "0x10",
    "1_0",
    "nan",
    "9" * 50,
    "::1",
    "192.0.2.141",
    "2001:db8:1::141",
    "fe80::1%1",
    "::",
]
WORDS = st.sampled_from(SHAPES) | st.sampled_from(MARKS) | st.sampled_from(KNOWN) | st.sampled_from(VALUES)


def check(text: str) -> None:
    try:
        cluster = parse(text)
    except ConfigError as error:
        problems = error.problems
    else:
        assert isinstance(cluster, Cluster)
        return
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
    assert problems
    assert problems == sorted(set(problems))
    for problem in problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.message
        assert "\n" not in str(problem)


@given(st.text())
def test_any_text(text: str):
    check(text)


@given(st.lists(WORDS | st.text(max_size=3)).map(" ".join) | st.lists(WORDS | st.text(max_size=3)).map("\n".join))
def test_any_mixture_of_what_means_something(text: str):
    check(text)


@settings(max_examples=400)
@given(st.data())
def test_any_change_of_a_good_file(data: st.DataObject):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(WORDS | st.text(max_size=4)) + text[end:]
    check(text)


@settings(max_examples=200)
@given(st.permutations(LINES), st.integers(0, len(LINES)))
def test_any_order_of_lines(lines: list[str], kept: int):
    check("\n".join(lines[:kept]))


@settings(max_examples=400)
@given(st.data())
def test_any_value_in_any_place(data: st.DataObject):
    """Whole values exchanged, so that the text stays YAML and the deeper checks are reached."""
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        words = sorted({word for word in text.replace("{", " ").replace("}", " ").replace(",", " ").split() if word})
        text = text.replace(data.draw(st.sampled_from(words)), data.draw(WORDS | st.sampled_from(words)), 1)
    check(text)
