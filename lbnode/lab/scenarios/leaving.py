"""An L4 node leaves in order, under flows: a second choice first, then withdrawn, then without packets; it comes back
at any point; and it leaves at once where somebody wants that."""

import json
from typing import Any

from lbnode.lab.clients.crowd import mix
from lbnode.lab.programs import AGENT, PATHS
from lbnode.lab.scenarios import rib
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage
from lbnode.roles.leaving import GRACEFUL_SHUTDOWN

FLOWS = 120
DEADLINE_S = 30.0
POLL_S = 0.05


def in_order(stage: Stage) -> None:
    """`touch disable`: the step, the withdrawal, the last packet; then back."""
    name, group = stage.l4[0], "leaving"
    stage.crowd.start(group, mix(FLOWS, ("download", "upload"), stage.vips, stage.clients))
    sessions, told = rib.established(stage, name), len(rib.heard_anywhere(stage, name))
    _undone_in_time(stage, name)
    with stage.file(name, PATHS.disable, ""):
        step = stage.wait(lambda: not stage.routed(name), DEADLINE_S, "routers that choose other nodes")
        routes = rib.heard_anywhere(stage, name)
        marked = [route for route in routes if GRACEFUL_SHUTDOWN in route.communities]
        expect(len(marked) == told, f"all {told} routes of {name} with {GRACEFUL_SHUTDOWN}", routes)
        stage.report.times("step_s", "touch disable -> no router's kernel uses the node", [step])
        stage.report.found(f"its {told} routes are still there, with {GRACEFUL_SHUTDOWN}: {_said(stage, name)}")
        gone = step + stage.wait(lambda: not rib.heard_anywhere(stage, name), DEADLINE_S, "the withdrawal", POLL_S)
        stage.report.times("withdrawn_s", "touch disable -> withdrawn from every router", [gone])
        stage.wait(lambda: _departure(stage, name).get("phase") == "gone", DEADLINE_S, "the last packet", 0.5)
        stage.report.found(f"and then: {_said(stage, name)}")
        stage.wait_for_bytes(group)
    back = stage.wait(lambda: stage.routed_fully(name), DEADLINE_S, f"every route by {name} again")
    stage.report.times("return_s", "rm disable -> every route there again", [back])
    now = rib.established(stage, name)
    expect(rib.same_sessions(sessions, now), f"the very same BGP sessions, {sessions}", now)
    stage.report.found(f"its {len(sessions)} sessions stayed up all the time")
    _at_once(stage, name)
    stage.finish(group, "meanwhile")


def _undone_in_time(stage: Stage, name: str) -> None:
    """Back within the step: nothing is withdrawn."""
    before = rib.withdrawals(stage, name)
    with stage.file(name, PATHS.disable, ""):
        stage.wait(lambda: not stage.routed(name), DEADLINE_S, "routers that choose other nodes")
    back = stage.wait(lambda: stage.routed_fully(name), DEADLINE_S, f"every route by {name} again")
    left = [route for route in rib.heard_anywhere(stage, name) if route.communities]
    expect(not left, "no community left", left)
    expect(rib.withdrawals(stage, name) == before, "no withdrawal", rib.withdrawals(stage, name))
    stage.report.times("undone_s", "rm disable within the step -> as before, and nothing was withdrawn", [back])


def _at_once(stage: Stage, name: str) -> None:
    """`leave=now` in the file."""
    with stage.file(name, PATHS.disable, "leave=now the lab\n"):
        gone = stage.wait(lambda: not stage.routed(name), DEADLINE_S, "no route")
        routes = rib.heard_anywhere(stage, name)
        expect(not routes, "withdrawn without a step", routes)
    stage.wait(lambda: stage.routed_fully(name), DEADLINE_S, f"every route by {name} again")
    stage.report.times("now_s", "`leave=now` in the file -> withdrawn", [gone])


def stopped(stage: Stage) -> None:
    """SIGTERM to an agent whose cluster file says `on_stop: keep`: nothing moves; it comes back and changes nothing."""
    name = stage.l4[-1]
    routes, before = stage.all_routes(), rib.withdrawals(stage, name)
    stage.supervisor.stop(stage.key(name, AGENT))
    expect(stage.all_routes() == routes, "every route as before", stage.all_routes())
    expect(not stage.node(name).exists(str(PATHS.bgp_heartbeat)), "no sign of life that could be missed", "one")
    stage.revive(name, AGENT)
    stage.wait(lambda: stage.node(name).exists(str(PATHS.bgp_heartbeat)), DEADLINE_S, "an agent that lives")
    expect(rib.withdrawals(stage, name) == before, "nothing withdrawn", rib.withdrawals(stage, name))
    stage.report.found(f"SIGTERM to the agent of {name}, and a new one: no route has moved")


def _departure(stage: Stage, name: str) -> dict[str, Any]:
    done = stage.lbnode(name, "status", "--json")
    found: dict[str, Any] = json.loads(done.out).get("leaving") or {}
    return found


def _said(stage: Stage, name: str) -> str:
    lines = stage.lbnode(name, "status").out.splitlines()
    return next((line for line in lines if line.startswith("leaving")), "(status says nothing)")
