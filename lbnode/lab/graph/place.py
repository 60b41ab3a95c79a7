"""Where everything of a drawing stands: rows of blocks, LANs in the gaps between them, tables below. PURE.

A LAN that joins a block with one below it is a line; any other is a bar, with a line to each of its blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from lbnode.lab.graph.across import across
from lbnode.lab.graph.figure import End, Figure, Wire
from lbnode.lab.graph.size import BOLD, CHAR, LINE, TITLE, Box, is_line, label, sides, widest, width

MARGIN, STUB, SLOPE, LANE, TABLE_GAP = 24.0, 22.0, 36.0, 44.0, 26.0
CELL, HEADING, STRAIGHT = 18.0, 9.4, 6.0

Point = tuple[float, float]
Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Text:
    """A line of text, from its left end on: first what is strong, such as a LAN's name."""

    x: float
    y: float
    strong: str
    plain: str = ""


@dataclass(frozen=True)
class Table:
    """`columns` are where each begins, `right` is where the last one ends; the first of `rows` is the heading, at
    `y`."""

    y: float
    columns: tuple[float, ...]
    right: float
    rows: Rows


@dataclass
class Placed:
    """A drawing with every place known. A bar is from x, to x, and y."""

    title: str
    boxes: list[Box]
    width: float = 0.0
    height: float = 0.0
    lines: list[tuple[Point, ...]] = field(default_factory=list)
    bars: list[tuple[float, float, float]] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def place(figure: Figure) -> Placed:
    """Every place in the drawing."""
    rows = across(figure)
    span = max(one.x + one.width for row in rows for one in row)
    start = MARGIN + max(0.0, (width(figure.title, HEADING) - span) / 2)
    depths = {block.key: block.depth for block in figure.blocks}
    lanes = _lanes(figure.wires, rows, depths)
    boxes: dict[str, Box] = {}
    floors: dict[int, float] = {}
    top = MARGIN + TITLE + 12
    for row in rows:
        boxes |= {one.block.key: replace(one, x=one.x + start, y=top) for one in row}
        depth = row[0].block.depth
        floors[depth] = top + max(one.height for one in row)
        top = floors[depth] + _gap([wire for wire in figure.wires if _above(wire, depths) == depth], depths, lanes)
    placed = Placed(figure.title, list(boxes.values()))
    sketch = Sketch(figure.wires, lanes, placed, boxes, depths, floors, _ports(figure.wires, boxes, depths))
    for wire in figure.wires:
        if is_line(wire, depths):
            sketch.line(wire)
        else:
            sketch.bar(wire, lanes[wire.name])
    right = [one.x + one.width for one in placed.boxes] + [to for _, to, _ in placed.bars]
    right += [text.x + width(text.strong, BOLD) + width(text.plain) for text in placed.texts]
    placed.width = max([*right, MARGIN + width(figure.title, HEADING)])
    _tables(figure.tables, placed, top + TABLE_GAP)
    placed.width += MARGIN
    return placed


def _above(wire: Wire, depths: dict[str, int]) -> int:
    return min(depths[end.block] for end in wire.ends)


def _gap(wires: Sequence[Wire], depths: dict[str, int], lanes: dict[str, int]) -> float:
    """The room that LANs need below a row; 0 when there are none."""
    room = 0.0
    for wire in wires:
        if is_line(wire, depths):
            room = max(room, STUB + SLOPE + _label_height(wire, depths))
        else:
            room = max(room, STUB + LANE * (1 + lanes[wire.name]) + _drop(wire, depths))
    return room


def _label_height(wire: Wire, depths: dict[str, int]) -> float:
    return LINE * len(label(wire, sides(wire, depths)[1][0])) + 8


def _drop(wire: Wire, depths: dict[str, int]) -> float:
    """From a bar down to what hangs on it."""
    lower = sides(wire, depths)[1]
    return (LINE + 10 if any(end.text for end in lower) else 20.0) if lower else 0.0


def _lanes(wires: Sequence[Wire], rows: Sequence[Sequence[Box]], depths: dict[str, int]) -> dict[str, int]:
    """Bars in one gap that would overlap lie above each other."""
    middles = {one.block.key: one.middle for row in rows for one in row}
    found: dict[str, int] = {}
    taken: list[tuple[int, int, float, float]] = []
    for wire in wires:
        if not is_line(wire, depths):
            ends = [middles[end.block] for end in wire.ends]
            depth, left, right = _above(wire, depths), min(ends) - 60, max(ends) + 60
            used = {lane for other, lane, start, stop in taken if other == depth and start < right and left < stop}
            lane = min(set(range(len(taken) + 1)) - used)
            taken.append((depth, lane, left, right))
            found[wire.name] = lane
    return found


Ports = dict[tuple[str, str], float]
"""The x where a LAN meets a block, by names of both."""


def _ports(wires: Sequence[Wire], boxes: dict[str, Box], depths: dict[str, int]) -> Ports:
    """At equal distances on each side of a block, in the order of what they lead to."""
    meeting: dict[tuple[str, bool], list[tuple[float, str]]] = {}
    for wire in wires:
        upper, lower = sides(wire, depths)
        for ends, others, below in ((upper, lower or upper, True), (lower, upper, False)):
            middle = sum(boxes[end.block].middle for end in others) / len(others) if others else 0.0
            for end in ends:
                meeting.setdefault((end.block, below), []).append((middle, wire.name))
    found: Ports = {}
    for (block, _), met in meeting.items():
        one = boxes[block]
        for index, (_, name) in enumerate(sorted(met, key=lambda item: item[0])):
            found[block, name] = one.x + one.width * (index + 0.5) / len(met)
    return found


@dataclass
class Sketch:
    """Draws LANs. `floors`: where the row of each depth ends; `lanes`: which of the bars in a gap, from below."""

    wires: Sequence[Wire]
    lanes: dict[str, int]
    placed: Placed
    boxes: dict[str, Box]
    depths: dict[str, int]
    floors: dict[int, float]
    ports: Ports

    def line(self, wire: Wire) -> None:
        (first,), (last,) = sides(wire, self.depths)
        start, end = self._down(wire, first), (self.ports[last.block, wire.name], self.boxes[last.block].y)
        bend = end[1] - _label_height(wire, self.depths)
        floor = self.floors[self.depths[first.block]] + STUB
        if abs(start[0] - end[0]) < STRAIGHT:  # so near that a line straight down meets both
            self.placed.lines.append(((end[0], start[1]), end))
        else:
            self.placed.lines.append((start, (start[0], floor), (end[0], bend), end))
        words = label(wire, last)
        for index, text in enumerate(words):
            strong = index == 0 and bool(wire.prefixes)
            y = end[1] - 8 - LINE * (len(words) - 1 - index)
            self.placed.texts.append(Text(end[0] + 7, y, text if strong else "", "" if strong else text))

    def bar(self, wire: Wire, lane: int) -> None:
        upper, lower = sides(wire, self.depths)
        floor = self.floors[self.depths[upper[0].block]]
        y = floor + STUB + LANE * (lane + 1)
        if lower:
            y = self.boxes[lower[0].block].y - _drop(wire, self.depths) - LANE * lane
        drops = [self._down(wire, end) for end in upper]
        self.placed.lines += [(start, (start[0], y)) for start in drops]
        for end in lower:
            x, top = self.ports[end.block, wire.name], self.boxes[end.block].y
            self.placed.lines.append(((x, y), (x, top)))
            if end.text:
                self.placed.texts.append(Text(x + 7, top - 8, "", end.text))
        about = f": {', '.join(wire.prefixes)}" if wire.prefixes else ""
        room = width(wire.name, BOLD) + width(about) + 12
        xs = [self.ports[end.block, wire.name] for end in wire.ends]
        left, right = min(xs) - 30, max(xs) + 30
        start = _free([left, *sorted(x for x in self._crossing(wire, lane) if x > left)], room)
        self.placed.bars.append((left, max(right, start + room), y))
        self.placed.texts.append(Text(start + 8, y - 9, wire.name, about))

    def _crossing(self, wire: Wire, lane: int) -> list[float]:
        """Where lines pass the place above a bar: its own from above, and those of bars in the same gap."""
        found = []
        for other in self.wires:
            if is_line(other, self.depths) or _above(other, self.depths) != _above(wire, self.depths):
                continue
            upper, lower = sides(other, self.depths)
            passing = lower if self.lanes[other.name] > lane else upper
            found += [self.ports[end.block, other.name] for end in passing]
        return found

    def _down(self, wire: Wire, end: End) -> Point:
        """Where a LAN leaves a block downwards, with its address beside it."""
        x, bottom = self.ports[end.block, wire.name], self.boxes[end.block].bottom
        if end.text:
            self.placed.texts.append(Text(x + 7, bottom + 15, "", end.text))
        return x, bottom


def _free(stops: Sequence[float], room: float) -> float:
    """The first place between stops with that much room; behind the last there is."""
    return next(start for start, stop in zip(stops, [*stops[1:], inf], strict=True) if stop - start >= room)


def _tables(tables: Sequence[Rows], placed: Placed, top: float) -> None:
    """Beside each other where there is room, else below."""
    left, below = MARGIN, top
    for rows in tables:
        widths = [widest(cells, CHAR if index else BOLD) for index, cells in enumerate(zip(*rows, strict=True))]
        across = sum(widths) + CELL * (len(widths) - 1)
        if left > MARGIN and left + across > placed.width:
            left, top = MARGIN, below
        columns = [left + sum(widths[:index]) + CELL * index for index in range(len(widths) + 1)]
        placed.tables.append(Table(top, tuple(columns[:-1]), columns[-1] - CELL, rows))
        placed.width = max(placed.width, left + across)
        left += across + 3 * CELL
        below = max(below, top + CELL * len(rows) + TABLE_GAP)
    placed.height = below - TABLE_GAP + MARGIN if tables else below
