"""Steps about `lbnode doctor`: what it says of sessions and next hops, on L4 nodes and on routers."""

import json
from collections.abc import Sequence

from lbnode.lab.programs import EXABGP, PATHS
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.wait import wait_until

DEADLINE_S, LOOK_S = 60.0, 1.0
Found = dict[str, tuple[str, str]]
"""Name of a finding -> verdict, and what was seen."""


def edge(stage: Stage) -> None:
    """All is well; then one L4 node leaves, and one loses its ExaBGP: each side says what it sees of it."""
    first, second, router = stage.l4[0], stage.l4[1], stage.lab.topology.routers[0]
    node, before = _node(stage, first), _router(stage, router)
    _no_failure(first, node)
    _no_failure(router, before)
    sessions = [name for name in node if name.startswith("bgp ")]
    stage.report.found(f"{first}: {len(sessions)} sessions up; {router}: {before['routes'][1]}")
    with stage.file(first, PATHS.disable, ""):
        stage.wait(lambda: not stage.routed(first), DEADLINE_S, f"no packets for {first}")
        found = _router(stage, router)
        warned = [seen for name, (verdict, seen) in found.items() if name.startswith("route ") and verdict == "warn"]
        expect(len(warned) == len({one.vip for one in stage.served}), f"a word on each VIP without {first}", found)
        stage.report.found(f"{first} disabled: {router} says {warned[0]!r}")
        said = wait_until(lambda: _silent(stage, first), DEADLINE_S, f"no VIP by {first}", LOOK_S)
        stage.report.found(f"{first} says {said!r}")
    stage.knock_out(second, EXABGP)
    found = _node(stage, second)
    expect(found["exabgp runs"][0] == "fail", f"{second} says that its ExaBGP does not run", found)
    stage.report.found(f"ExaBGP stopped: {second} says {found['exabgp runs'][1]!r}")
    stage.revive(second, EXABGP)
    stage.wait(lambda: all(map(stage.routed_fully, stage.l4)), DEADLINE_S, "every VIP by every L4 node")


def _silent(stage: Stage, name: str) -> str:
    """What a node says that announces nothing; "" while it does."""
    verdict, seen = _node(stage, name)["announced"]
    return seen if verdict == "warn" else ""


def _no_failure(name: str, found: Found) -> None:
    failed = {label: seen for label, (verdict, seen) in found.items() if verdict == "fail"}
    expect(not failed, f"no failure on {name}", failed)


def _node(stage: Stage, name: str) -> Found:
    return _findings(stage, name, ())


def _router(stage: Stage, name: str) -> Found:
    """A router is not in the cluster file; it is shown where the file is."""
    return _findings(stage, name, ("--role", "router", "--config", str(stage.lab.topology.cluster_file)))


def _findings(stage: Stage, name: str, options: Sequence[str]) -> Found:
    done = stage.lbnode(name, "doctor", "--json", *options)
    expect(done.status in (0, 1), f"lbnode doctor works on {name}", done)
    return {one["name"]: (one["verdict"], one["seen"]) for one in json.loads(done.out)["findings"]}
