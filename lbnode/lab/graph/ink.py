"""A placed drawing as SVG: readable on light and on dark pages, without scripts and without fonts of its own. PURE."""

from collections.abc import Iterator
from html import escape

from lbnode.lab.graph.place import CELL, MARGIN, Placed, Table, Text
from lbnode.lab.graph.size import CARD_GAP, LINE, PAD, TITLE, Box

SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
COLOURS = {
    # kind: stroke and fill on light pages, stroke and fill on dark ones
    "users": ("#57606a", "#f6f8fa", "#8b949e", "#161b22"),
    "router": ("#0969da", "#ddf4ff", "#58a6ff", "#0b2038"),
    "l4": ("#8250df", "#fbefff", "#bc8cff", "#241640"),
    "l7": ("#1a7f37", "#dafbe1", "#3fb950", "#0b2616"),
    "backend": ("#9a6700", "#fff8c5", "#d29922", "#2b1f08"),
    "dns": ("#bf3989", "#ffeff7", "#f778ba", "#36122a"),
    "speaker": ("#0969da", "#ddf4ff", "#58a6ff", "#0b2038"),
    "other": ("#57606a", "#f6f8fa", "#8b949e", "#161b22"),
}
PAGE, INK, FAINT, WIRE = ("#ffffff", "#0d1117"), ("#1f2328", "#e6edf3"), ("#59636e", "#9198a1"), ("#818b98", "#656c76")

CUT = 6.0
Points = tuple[tuple[float, float], ...]


def svg(placed: Placed) -> str:
    """The text of an SVG file."""
    width, height = _n(placed.width), _n(placed.height)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(placed.title)}</title>",
        f"<style>{_style()}</style>",
        '<rect class="page" width="100%" height="100%"/>',
        f'<text class="head" x="{_n(MARGIN)}" y="{_n(MARGIN + 12)}">{escape(placed.title)}</text>',
        *(f'<path class="bar" d="M{_n(left)} {_n(y)}H{_n(right)}"/>' for left, right, y in placed.bars),
        *(_over(points) for points in placed.lines),
        *(_line(points) for points in placed.lines),
        *(line for box in placed.boxes for line in _box(box)),
        *(_text(text) for text in placed.texts),
        *(line for table in placed.tables for line in _table(table)),
        "</svg>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _style() -> str:
    """All rules for light pages, then those that differ on dark ones."""
    base = (
        f"text{{font:12px {SANS};white-space:pre}}.head{{font-size:15px;font-weight:600}}"
        ".name{font-weight:600}.wire{fill:none;stroke-width:1.6}.bar{fill:none;stroke-width:5;stroke-linecap:round}"
        ".over{stroke-width:9}.box{stroke-width:1.4}.card{stroke-width:1}"
    )
    return base + _theme(0) + "@media (prefers-color-scheme:dark){" + _theme(1) + "}"


def _theme(dark: int) -> str:
    rules = [f".page,.card{{fill:{PAGE[dark]}}}", f"text{{fill:{FAINT[dark]}}}", f".head,.name{{fill:{INK[dark]}}}"]
    rules.append(f".over{{stroke:{PAGE[dark]}}}")
    rules.append(f".wire,.bar,.rule{{stroke:{WIRE[dark]}}}")
    for kind, colours in COLOURS.items():
        stroke, fill = colours[2 * dark : 2 * dark + 2]
        rules.append(f".{kind}{{stroke:{stroke}}}.{kind}.box{{fill:{fill}}}")
    return "".join(rules)


def _line(points: Points) -> str:
    path = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return f'<path class="wire" d="M{path}"/>'


def _over(points: Points) -> str:
    """What is below a line is cut where the line passes, so that it does not look joined; not at its ends."""
    (x, start), (end_x, end) = points[0], points[-1]
    if x != end_x or end - start < 4 * CUT:
        return ""
    return f'<path class="over" d="M{_n(x)} {_n(start + CUT)}V{_n(end - CUT)}"/>'


def _box(box: Box) -> Iterator[str]:
    block = box.block
    yield _rect(f"{block.kind} box", box.x, box.y, box.width, box.height, 8)
    if block.cards:
        yield _words("name", box.x + PAD, box.y + TITLE - 2, block.title)
    else:
        yield _words("name", box.middle, box.y + TITLE - 2, block.title, middle=True)
    y = box.y + TITLE - 2
    for note in block.notes:
        y += LINE
        x = box.x + PAD if block.cards else box.middle
        yield _words("", x, y, note, middle=not block.cards)
    card_width, card_height = box.card
    for index, card in enumerate(block.cards):
        x = box.x + PAD + (index % box.columns) * (card_width + CARD_GAP)
        top = y + 10 + (index // box.columns) * (card_height + CARD_GAP)
        yield _rect(f"{block.kind} card", x, top, card_width, card_height, 5)
        for number, words in enumerate((card.name, *card.lines)):
            yield _words("" if number else "name", x + CARD_GAP, top + LINE * (number + 1), words)


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    where = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"'
    return f'<rect class="{kind}" {where}/>'


def _words(kind: str, x: float, y: float, words: str, middle: bool = False) -> str:
    attributes = (f' class="{kind}"' if kind else "") + (' text-anchor="middle"' if middle else "")
    return f'<text{attributes} x="{_n(x)}" y="{_n(y)}">{escape(words)}</text>'


def _text(text: Text) -> str:
    strong = f'<tspan class="name">{escape(text.strong)}</tspan>' if text.strong else ""
    return f'<text x="{_n(text.x)}" y="{_n(text.y)}">{strong}{escape(text.plain)}</text>'


def _table(table: Table) -> Iterator[str]:
    for number, row in enumerate(table.rows):
        y = table.y + CELL * number
        for column, (x, cell) in enumerate(zip(table.columns, row, strict=True)):
            yield _words("name" if number and not column else "", x, y, cell)
        if not number:
            yield f'<path class="rule" d="M{_n(table.columns[0])} {_n(y + 6)}H{_n(table.right)}"/>'


def _n(number: float) -> str:
    """A number in as few characters as it needs."""
    return f"{number:.1f}".removesuffix(".0")
