"""The nodes of a lab that another process keeps: for whoever comes by later and wants to look, or to send traffic.

The process that keeps a lab up leaves a note beside it (`Note`): which topology, and the first process of each node.
Whoever may enter those processes' namespaces can do in a node all that the lab's own process can.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

from lbnode.lab import spool
from lbnode.lab.build import Lab, load
from lbnode.lab.errors import LabError
from lbnode.lab.machine import KINDS
from lbnode.lab.namespaces import Node

NAME = "lab.json"


@dataclass(frozen=True)
class Note:
    """What is needed to find a lab: the folder and scale of its topology, its own folder, node -> pid."""

    folder: str
    scale: str
    work: str
    holders: dict[str, int]

    @classmethod
    def of(cls, lab: Lab) -> Self:
        topology = lab.topology
        holders = {name: node.holder for name, node in lab.nodes.items()}
        return cls(str(topology.folder), topology.scale, str(lab.folder), holders)

    def leave(self, state: Path) -> None:
        spool.publish(state / NAME, json.dumps(asdict(self)).encode())


class Attached(Node):
    """A node that is somebody else's; closing it ends nothing but our own children's ties to it."""

    def __init__(self, name: str, holder: int) -> None:
        self.name = name
        self._holder = holder
        self._children: set[int] = set()
        try:
            self._opened = {
                flag: os.open(f"/proc/{holder}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind, flag in KINDS.items()
            }
        except OSError as error:
            raise LabError(f"cannot enter node {name}: {error.strerror}") from error

    @property
    def namespaces(self) -> Mapping[int, int]:
        return self._opened

    @property
    def holder(self) -> int:
        return self._holder

    def close(self) -> None:
        for descriptor in self._opened.values():
            os.close(descriptor)
        self._opened = {}


def attach(state: Path) -> Lab:
    """The lab that is kept in a state directory. Raises LabError when there is none, or its nodes are gone."""
    try:
        note = Note(**json.loads((state / NAME).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise LabError(f"cannot find a lab at {state}: {error}") from error
    nodes = {name: Attached(name, holder) for name, holder in note.holders.items()}
    return Lab(load(Path(note.folder), note.scale), MappingProxyType(nodes), Path(note.work))
