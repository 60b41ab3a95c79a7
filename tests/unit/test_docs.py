"""Every piece of a cluster file in the documentation is one that `lbnode check` takes.

A block with `bgp` and `nodes` is a whole file. Any other is put into a small cluster: its services and pools take the
place of that cluster's, its nodes that of all nodes with the same roles, each other section that of its own, but
for keys of bgp that it leaves out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbnode.config.load import parse
from lbnode.config.model import Cluster

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "lab").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
OTHERS = {"scrape_configs", "groups"}
"""Top-level keys of YAML that is not for lbnode."""

SMALL = """
bgp: {local_asn: 65001, peers: {r4: {address: 192.0.2.129, asn: 65000}, r6: {address: "2001:db8::129", asn: 65000}}}
nodes:
  l4-1: {role: l4, ipv4: 192.0.2.141, ipv6: "2001:db8::141"}
  l7-1: {role: l7, ipv4: 192.0.2.148, ipv6: "2001:db8::148"}
  l7-2: {role: l7, ipv4: 192.0.2.149, ipv6: "2001:db8::149"}
  s1: {role: backend, ipv4: 192.0.2.181, ipv6: "2001:db8::181"}
  s2: {role: backend, ipv4: 192.0.2.182, ipv6: "2001:db8::182"}
services: {www: {vips: [198.51.100.200], pool: web}}
pools: {web: {}}
"""


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Where a block stands, and its text."""
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(content):
            if found[1] in languages:
                line = content.count("\n", 0, found.start()) + 1
                yield f"{page.relative_to(ROOT)}:{line}", found[2]


YAML = [pytest.param(text, id=place) for place, text in blocks("yaml", "yml")]


def merged(fragment: dict[str, Any]) -> str:
    """A whole cluster file that holds the fragment."""
    whole = yaml.safe_load(SMALL)
    if "nodes" in fragment:
        roles = {node["role"] for node in fragment["nodes"].values()}
        kept = {name: node for name, node in whole["nodes"].items() if node["role"] not in roles}
        fragment = {**fragment, "nodes": {**kept, **fragment["nodes"]}}
    if "pools" in fragment:
        fragment = {**fragment, "pools": {**whole["pools"], **fragment["pools"]}}
    if "bgp" in fragment:
        fragment = {**fragment, "bgp": {**whole["bgp"], **fragment["bgp"]}}
    return yaml.safe_dump({**whole, **fragment}, sort_keys=False)


@pytest.mark.parametrize("text", YAML)
def test_check_takes_it(text: str) -> None:
    found = yaml.safe_load(text)
    if OTHERS & found.keys():
        assert not found.keys() & Cluster.model_fields.keys()
    elif {"bgp", "nodes"} <= found.keys():
        parse(text)
    else:
        parse(merged(found))


def test_it_looks_at_all_of_them() -> None:
    """Also at those that somebody indents, or writes without a language."""
    assert len(YAML) >= 10
    fences = sum(len(re.findall(r"^\s*```ya?ml", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in PAGES)
    assert fences == len(YAML)


def test_programs_in_it_can_be_compiled() -> None:
    programs = list(blocks("python"))
    assert programs
    for place, text in programs:
        compile(text, place, "exec")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        assert "://" in target or (page.parent / target).exists(), target
