"""Tiers 2 and 3 with lbnode, as its documentation tells operators to run them.

An L7 node that stands by has the cluster file with itself in it; everybody else has it without. To add it is to give
everybody the whole file, to remove it is to give everybody the shorter one.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from lbnode.lab import programs
from lbnode.lab.build import CLUSTER_FILE
from lbnode.lab.errors import LabError
from lbnode.lab.programs import AGENT, EXABGP, HAPROXY, PATHS
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage

WITHOUT = "lbnode-without-second-chance"
STARTED_S = 180.0
STARTED_PER_NODE_S = 5.0


class Own:
    """A Stack; see `lbnode.lab.stacks`. Without a second chance it shows what that is worth."""

    def __init__(self, second_chance: bool = True) -> None:
        self.name = "lbnode" if second_chance else WITHOUT
        self._second_chance = second_chance
        self._stage: Stage | None = None

    @property
    def stage(self) -> Stage:
        if self._stage is None:
            raise LabError("cannot use the lbnode stack: it has not been started")
        return self._stage

    def start(self, stage: Stage, l7: Sequence[str]) -> None:
        self._stage = stage
        self.set_l7(l7)
        programs.start_nodes(stage.lab, stage.supervisor)
        deadline_s = STARTED_S + STARTED_PER_NODE_S * len(stage.lab.topology.machines)
        stage.wait(lambda: all(map(stage.routed_fully, stage.l4)), deadline_s, "every VIP by every L4 node")
        stage.wait(lambda: stage.all_in_use(l7), deadline_s, "every real server in use on every L4 node", 0.5)

    def set_l7(self, names: Sequence[str]) -> None:
        """L4 nodes come last: a new L7 node can serve before anybody sends to it."""
        path = self.stage.lab.topology.cluster_file
        shorter = without(path, set(self.stage.l7) - set(names))
        for name in (*self.stage.backends, *self.stage.l7, *self.stage.l4):
            stands_by = name in self.stage.l7 and name not in names
            text = path.read_text(encoding="utf-8") if stands_by else shorter
            text += "" if self._second_chance else "\nsecond_chance: {enabled: false}\n"
            node = self.stage.node(name)
            if node.read(CLUSTER_FILE) != text:
                node.write(CLUSTER_FILE, text)

    def l4_out(self, name: str) -> None:
        self.stage.node(name).write(PATHS.disable, "")

    def l4_back(self, name: str) -> None:
        self.stage.node(name).call(lambda: PATHS.disable.unlink(missing_ok=True))

    def l7_drain(self, name: str) -> None:
        self._lbnode(name, "drain", "--reason", "lab")

    def l7_ready(self, name: str) -> None:
        self._lbnode(name, "ready")

    def l4_programs(self) -> tuple[str, ...]:
        return (AGENT, EXABGP)

    def l7_programs(self) -> tuple[str, ...]:
        return (HAPROXY, AGENT)

    def restart_control(self, name: str) -> None:
        self.stage.kill(name, AGENT)

    def _lbnode(self, name: str, *arguments: str) -> None:
        done = self.stage.lbnode(name, *arguments)
        expect(done.status == 0, f"lbnode {arguments[0]} works on {name}", done)


def without(cluster_file: Path, names: set[str]) -> str:
    """The cluster file without some nodes, the others in their order; as it is when there are none to leave out."""
    text = cluster_file.read_text(encoding="utf-8")
    if not names:
        return text
    cluster = yaml.safe_load(text)
    cluster["nodes"] = {name: node for name, node in cluster["nodes"].items() if name not in names}
    return yaml.safe_dump(cluster, sort_keys=False)


def own_without() -> Own:
    return Own(second_chance=False)
