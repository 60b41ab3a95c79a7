"""A drawing of a topology: machines by tiers, the LANs between them, addresses, autonomous systems, VIPs. PURE.

`figure` says what is to be seen, `place` where it stands, `ink` makes SVG of it; `draw` does all three. The same
topology always gives the same text, so a drawing in the repository can be compared with what it should be.
"""

from lbnode.lab.graph.figure import figure
from lbnode.lab.graph.ink import svg
from lbnode.lab.graph.place import place
from lbnode.lab.topology import Topology


def draw(topology: Topology) -> str:
    """The drawing, as the text of an SVG file."""
    return svg(place(figure(topology)))
