"""Drawings of topologies: complete, legible, always the same, and those in the repository not out of date."""

import re
from functools import cache
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from lbnode.cli import run
from lbnode.lab import layout
from lbnode.lab.build import load
from lbnode.lab.graph import draw
from lbnode.lab.graph.figure import Block, End, Figure, Wire, figure, shortened
from lbnode.lab.graph.ink import svg
from lbnode.lab.graph.place import place
from lbnode.lab.graph.size import BOLD, LINE, width
from lbnode.templates import share

FOLDERS = sorted(path.parent for path in share("lab").glob("*/topology.yaml"))
LABS = [
    pytest.param(folder, scale, id=f"{folder.name}-{scale}")
    for folder in FOLDERS
    for scale in layout.read(folder).scales
]
SVG = "{http://www.w3.org/2000/svg}"


loaded = cache(load)


def words(text: str) -> str:
    """All text of a drawing, as it reads."""
    root = ET.fromstring(text)  # noqa: S314 - it is our own
    return "\n".join("".join(element.itertext()) for element in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_drawing_in_the_repository_is_up_to_date(folder, capsys):
    assert run(["lab", "graph", folder.name]) == 0
    assert (folder / "drawing.svg").read_text() == capsys.readouterr().out, "`make docs` writes it anew"
    first = (folder / "README.md").read_text().split("\n\n")[1]
    assert first.startswith("!["), "the drawing comes first"
    assert "](drawing.svg)" in first


@pytest.mark.parametrize(("folder", "scale"), LABS)
def test_everything_is_in_it(folder, scale):
    topology = loaded(folder, scale)
    text = words(draw(topology))
    lines = set(re.split(r"\n|, |: ", text))
    assert set(topology.machines) <= lines
    for service in topology.cluster.services.values():
        assert all(str(vip) in lines for vip in service.vips)
    for node in topology.cluster.nodes.values():
        assert node.ipv4 is None or str(node.ipv4) in lines
    for machine in topology.machines.values():
        for address in machine.every_address if not machine.clients else ():
            last = re.split(r"[.:]", address)[-1]
            assert re.search(rf"[.:]{last}\b", text), f"{address} of {machine.name}"
    for lan, members in topology.lans.items():
        nets = [
            address
            for name in members
            for p in topology.machines[name].ports
            if p.lan == lan
            for address in p.addresses
        ]
        assert len(members) == 1 or not nets or lan in lines
    for peer in topology.cluster.bgp.peers.values():
        assert f"AS {peer.asn}" in lines


@pytest.mark.parametrize(("folder", "scale"), LABS)
def test_it_is_legible(folder, scale):
    """No block lies on another, no text on a block or on another text, and all of it is inside."""
    placed = place(figure(loaded(folder, scale)))
    areas = [(box.x, box.y, box.x + box.width, box.bottom, box.block.key) for box in placed.boxes]
    for text in placed.texts:
        right = text.x + width(text.strong, BOLD) + width(text.plain)
        areas.append((text.x, text.y - LINE + 4, right, text.y, text.strong + text.plain))
    for one, other in combinations(areas, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, f"{one[4]} and {other[4]}"
    for left, top, right, bottom, what in areas:
        assert min(left, top) >= 0, what
        assert right <= placed.width, what
        assert bottom <= placed.height, what


@pytest.mark.parametrize(("folder", "scale"), LABS)
def test_the_same_topology_gives_the_same_drawing(folder, scale):
    assert draw(load(folder, scale)) == draw(load(folder, scale))


def blocks(*depths: int) -> tuple[Block, ...]:
    return tuple(Block(f"b{index}", "router", depth, f"b{index}", ()) for index, depth in enumerate(depths))


def test_a_lan_between_two_rows_is_a_line_and_any_other_a_bar():
    two = Wire("cable", ("192.0.2.0/31",), (End("b0", ".0"), End("b1", ".1")))
    same = Wire("beside", (), (End("b1", ""), End("b2", "")))
    placed = place(Figure("t", blocks(0, 1, 1), (two, same), ()))
    assert len(placed.bars) == 1
    assert placed.bars[0][2] > max(box.bottom for box in placed.boxes), "it hangs below what it joins"
    assert [text.strong for text in placed.texts if text.strong] == ["cable", "beside"]


def test_bars_in_one_gap_lie_apart_and_are_cut_where_another_line_passes():
    wires = [Wire(name, (name,), tuple(End(f"b{index}", "") for index in range(4))) for name in ("one", "two")]
    placed = place(Figure("t", blocks(0, 1, 1, 1), tuple(wires), ()))
    (_, _, first), (_, _, second) = placed.bars
    assert abs(first - second) >= LINE * 2
    assert 'class="over"' in svg(placed)


def test_names_and_texts_are_escaped():
    block = Block("b0", "other", 0, "<b>&", ("<i>",))
    text = svg(place(Figure("a <title>", (block,), (), ((("<th>",), ("&",)),))))
    assert words(text).split("\n") == ["a <title>", "<b>&", "<i>", "<th>", "&"]


def test_many_names_are_shortened():
    assert shortened(["r1", "r2", "r3"]) == "r1, r2, r3"
    assert shortened(["r1", "r2", "r3", "r4"]) == "r1 … r4 (4)"


def test_an_unknown_topology_is_refused():
    assert run(["lab", "graph", "nowhere"]) == 2
