"""The reference page: generated, complete, and its example works."""

import re
from pathlib import Path

from lbnode.config.load import parse
from lbnode.config.reference import EXAMPLE, page
from lbnode.config.words import SECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cluster-file.md"


def test_the_committed_page_is_the_generated_one():
    again = "python -m lbnode.config.reference > docs/reference/cluster-file.md"
    assert PAGE.read_text() == page(), f"write it again: {again}"


def test_the_example_is_three_tiers_and_fits_on_a_screen():
    (example,) = re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
    assert example == EXAMPLE
    assert len(example.splitlines()) <= 40
    cluster = parse(example)
    assert [len(cluster.with_role(role)) for role in ("l4", "l7", "backend")] == [3, 4, 4]
    assert sorted(peer.address.version for peer in cluster.bgp.peers.values()) == [4, 4, 6, 6]
    assert all(node.ipv4 is None and node.ipv6 for node in cluster.with_role("backend").values())


def test_every_key_has_a_row():
    text = page()
    for model in SECTIONS.values():
        for name in model.model_fields:
            assert f"\n| `{name}` | " in text


def test_every_link_leads_to_a_section():
    text = page()
    sections = {
        heading.lower().replace(".", "").replace(" ", "-") for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([^)]*)\)", text)) <= sections
