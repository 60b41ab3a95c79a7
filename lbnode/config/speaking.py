"""What the `bgp` part of a cluster file says against itself: settings for a speaker that is not there, a table that is
taken, two peers on one interface, nobody to speak with. PURE."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbnode.config.model import Bgp
from lbnode.config.positions import Path
from lbnode.config.words import Finding
from lbnode.resources import LOCAL_TABLE

if TYPE_CHECKING:
    from lbnode.config.draft import Draft
    from lbnode.config.sound import Sound

LISTS: tuple[Path, ...] = (("bgp", "peers"), ("bgp", "unnumbered"))


@dataclass(frozen=True)
class Cable:
    """An unnumbered peer; no `nodes`: every node that announces speaks with it."""

    path: Path
    interface: str
    nodes: frozenset[str]

    def meets(self, other: "Cable") -> bool:
        """Whether a node has both on one interface."""
        together = not self.nodes or not other.nodes or self.nodes & other.nodes
        return bool(self.interface == other.interface and together)


@dataclass(frozen=True)
class Speaking:
    """`speaker` and `table` are "" when another finding speaks of them. `table_only`: the settings that only BIRD and
    FRR heed, `exabgp_only`: that only ExaBGP's relay does; `peerless`: certainly nobody to speak with is named."""

    speaker: str
    table: str
    cables: tuple[Cable, ...]
    table_only: tuple[Path, ...]
    exabgp_only: tuple[Path, ...]
    peerless: bool


def speaking(sound: "Sound") -> Speaking:
    """What is certain."""
    given: list[Path] = [("bgp", key) for key in ("table", "unnumbered", "bfd") if key in sound.entries(("bgp",))]
    peers: list[Path] = [(*LISTS[0], name) for name in sound.entries(LISTS[0])]
    given += [(*peer, "bfd") for peer in peers if "bfd" in sound.entries(peer)]
    cables = []
    for name in sound.entries(LISTS[1]):
        path: Path = (*LISTS[1], name)
        if interface := sound.value((*path, "interface")):
            nodes = frozenset(node for _, node in sound.items((*path, "nodes")))
            cables.append(Cable(path, interface, nodes))
    known = all(map(sound.complete, LISTS)) and not sound.is_broken(("bgp",)) and ("bgp",) not in sound.lost
    return Speaking(
        speaker=sound.value(("bgp", "speaker"), Bgp.model_fields["speaker"].default) or "",
        table=sound.value(("bgp", "table"), str(Bgp.model_fields["table"].default)) or "",
        cables=tuple(cables),
        table_only=tuple(given),
        exabgp_only=(("bgp", "dead_man"),) if "dead_man" in sound.entries(("bgp",)) else (),
        peerless=known and not any(map(sound.entries, LISTS)),
    )


def findings(draft: "Draft") -> Iterator[Finding]:
    known = draft.speaking
    if known.peerless:
        message = "there is no BGP peer to announce to"
        yield Finding(("bgp",), message, "name routers under peers", at_key=True)
    if known.speaker == "exabgp":
        for path in known.table_only:
            message = f"'{path[-1]}' has no effect with speaker: exabgp"
            yield Finding(path, message, "leave it out, or set speaker: table", at_key=True)
    if known.speaker == "table":
        for path in known.exabgp_only:
            message = f"'{path[-1]}' has no effect with speaker: table, whose routes stay until they are removed"
            yield Finding(path, message, "leave it out, or set speaker: exabgp", at_key=True)
    if known.table == str(LOCAL_TABLE):
        message = f"table {LOCAL_TABLE} holds the routes to failed real servers"
        yield Finding(("bgp", "table"), message, f"use {Bgp.model_fields['table'].default}, or another")
    for index, cable in enumerate(known.cables):
        first = next((other for other in known.cables[:index] if cable.meets(other)), None)
        if first is not None:
            message = f"interface {cable.interface} already belongs to peer '{first.path[-1]}'"
            yield Finding(
                (*cable.path, "interface"),
                message,
                "a cable has one other end; say by nodes whose it is",
                first=(*first.path, "interface"),
            )
