"""How large things in a drawing are. The width of a text is estimated: nothing depends on which fonts there are. PURE.

Lengths are in the drawing's own units, about a pixel each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from lbnode.lab.graph.figure import Block, End, Wire

LINE, CHAR, BOLD = 15.0, 6.8, 7.8
"""Height of a line of text; width of a character, and of a bold one."""
PAD, BETWEEN, PORT = 12.0, 30.0, 30.0
CARD_GAP = 8.0
TITLE = 21.0


@dataclass(frozen=True)
class Box:
    """A block and its place; `columns` and `card` (width and height) are those of its cards."""

    block: Block
    width: float
    height: float
    columns: int = 1
    card: tuple[float, float] = (0.0, 0.0)
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height


def width(text: str, per_character: float = CHAR) -> float:
    return len(text) * per_character


def widest(texts: Iterable[str], per_character: float = CHAR) -> float:
    return max((width(text, per_character) for text in texts), default=0.0)


def sides(wire: Wire, depths: dict[str, int]) -> tuple[list[End], list[End]]:
    """The ends above a LAN, and those below it."""
    first = min(depths[end.block] for end in wire.ends)
    upper = [end for end in wire.ends if depths[end.block] == first]
    return upper, [end for end in wire.ends if depths[end.block] != first]


def is_line(wire: Wire, depths: dict[str, int]) -> bool:
    """Whether it joins one block with one below it."""
    upper, lower = sides(wire, depths)
    return len(upper) == len(lower) == 1


def label(wire: Wire, end: End) -> tuple[str, ...]:
    """What stands beside a line above its lower end: the LAN and its prefixes, and the address there."""
    about = (wire.name, *wire.prefixes) if wire.prefixes else ()
    return (*about, *([end.text] if end.text else []))


def box(block: Block, wires: Sequence[Wire], depths: dict[str, int], least_width: float) -> Box:
    """Large enough for its texts, its cards, and the labels beside the LANs that it meets."""
    labels = _port_rooms(block, wires, depths)
    across = max(least_width - 2 * PAD, width(block.title, BOLD), widest(block.notes), *labels)
    high = TITLE + LINE * len(block.notes)
    if not block.cards:
        return Box(block, across + 2 * PAD, high + PAD)
    columns = ceil(sqrt(len(block.cards)))
    rows = ceil(len(block.cards) / columns)
    texts = [text for card in block.cards for text in card.lines]
    names = widest((card.name for card in block.cards), BOLD)
    least = max(names, widest(texts)) + 2 * CARD_GAP
    card_width = max(least, (across + CARD_GAP) / columns - CARD_GAP)
    card_height = LINE * (1 + max(len(card.lines) for card in block.cards)) + CARD_GAP
    inside = columns * (card_width + CARD_GAP) - CARD_GAP
    high += rows * (card_height + CARD_GAP) - CARD_GAP + 6
    return Box(block, inside + 2 * PAD, high + PAD, columns, (card_width, card_height))


def _port_rooms(block: Block, wires: Sequence[Wire], depths: dict[str, int]) -> tuple[float, float]:
    """What the labels of several LANs on its lower and on its upper side need."""
    below, above = (
        max(PORT, *labels) * len(labels) - 2 * PAD if len(labels) > 1 else 0.0
        for labels in _labels(block, wires, depths)
    )
    return below, above


def least(block: Block, wires: Sequence[Wire], depths: dict[str, int]) -> float:
    """How wide a block and those beside it have to be, for the label of the only LAN on a side sticks out of it."""
    return max((labels[0] - BETWEEN for labels in _labels(block, wires, depths) if len(labels) == 1), default=0.0)


def _labels(block: Block, wires: Sequence[Wire], depths: dict[str, int]) -> tuple[list[float], list[float]]:
    """The widths of what stands to the right of its lines, on its lower and on its upper side."""
    below, above = [], []
    for wire in wires:
        upper, lower = sides(wire, depths)
        below += [width(end.text) + 16 for end in upper if end.block == block.key]
        for end in lower:
            if end.block == block.key:
                texts = label(wire, end) if is_line(wire, depths) else (end.text,)
                above.append(widest(texts) + 16)
    return below, above
