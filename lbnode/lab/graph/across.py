"""Where blocks of a drawing stand from left to right: near those that they are joined with, clear of others. PURE."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lbnode.lab.graph.figure import Block, Figure
from lbnode.lab.graph.size import BETWEEN, Box, box, least

SWEEPS = 7
"""An odd number: the last one goes upwards, so that clients end up above what they are joined with."""


def across(figure: Figure) -> list[list[Box]]:
    """Rows of boxes by depth, each from left to right; the leftmost of all stands at 0."""
    depths = {block.key: block.depth for block in figure.blocks}
    joined = _joined(figure)
    rows = []
    for blocks in _order(figure, joined):
        least_width = max(least(block, figure.wires, depths) for block in blocks)
        rows.append([box(block, figure.wires, depths, least_width) for block in blocks])
    rows = [_spread(row, [sum(one.width for one in row[:index]) for index in range(len(row))]) for row in rows]
    rows = [[replace(one, x=one.x - row[-1].x / 2) for one in row] for row in rows]
    for sweep in range(SWEEPS):
        every = range(len(rows))
        for index in every if sweep % 2 else reversed(every):
            middles = {one.block.key: one.middle for row in rows for one in row}
            near = [[middles[key] for key in joined[one.block.key]] or [one.middle] for one in rows[index]]
            wanted = [sum(of) / len(of) - one.width / 2 for of, one in zip(near, rows[index], strict=True)]
            rows[index] = _spread(rows[index], wanted)
    left = min(one.x for row in rows for one in row)
    return [[replace(one, x=one.x - left) for one in row] for row in rows]


def _joined(figure: Figure) -> dict[str, list[str]]:
    """Block -> blocks of other rows on its LANs."""
    depths = {block.key: block.depth for block in figure.blocks}
    found: dict[str, list[str]] = {key: [] for key in depths}
    for wire in figure.wires:
        for end in wire.ends:
            found[end.block] += [one.block for one in wire.ends if depths[one.block] != depths[end.block]]
    return found


def _order(figure: Figure, joined: dict[str, list[str]]) -> Iterator[list[Block]]:
    """Rows of blocks; in a row by where their neighbours above stand, those between LANs before those on one."""
    places: dict[str, float] = {}
    for depth in sorted({block.depth for block in figure.blocks}):
        row = [block for block in figure.blocks if block.depth == depth]
        above = {block.key: [places[other] for other in joined[block.key] if other in places] for block in row}
        row.sort(key=lambda block: (sum(above[block.key]) / (len(above[block.key]) or 1), block.kind != "router"))
        places |= {block.key: (index + 0.5) / len(row) for index, block in enumerate(row)}
        yield row


def _spread(row: Sequence[Box], wanted: Sequence[float]) -> list[Box]:
    """The row with every box as near as can be to where it is wanted, in its order, with room between: boxes that would
    overlap move together, to the mean of what they want (pool adjacent violators)."""
    groups: list[tuple[list[Box], list[float]]] = []
    for one, left in zip(row, wanted, strict=True):
        groups.append(([one], [left]))
        while len(groups) > 1 and _start(groups[-2]) + _length(groups[-2]) + BETWEEN > _start(groups[-1]):
            (boxes, starts), (more, begins) = groups[-2], groups[-1]
            moved = _length(groups[-2]) + BETWEEN
            groups[-2:] = [(boxes + more, starts + [begin - moved for begin in begins])]
    found = []
    for boxes, starts in groups:
        left = sum(starts) / len(starts)
        for one in boxes:
            found.append(replace(one, x=left))
            left += one.width + BETWEEN
    return found


def _start(group: tuple[list[Box], list[float]]) -> float:
    return sum(group[1]) / len(group[1])


def _length(group: tuple[list[Box], list[float]]) -> float:
    return sum(one.width for one in group[0]) + BETWEEN * (len(group[0]) - 1)
