"""Steps about lbnode itself: `apply` without an agent, drift, agents and ExaBGP that die, and cluster files that are
wrong. None of it may be felt by a flow."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lbnode.agent import control
from lbnode.errors import NotReady
from lbnode.lab import programs
from lbnode.lab.build import CLUSTER_FILE
from lbnode.lab.clients.crowd import mix
from lbnode.lab.programs import AGENT, EXABGP, PATHS
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.serving import converge
from lbnode.lab.scenarios.stage import Done, Stage
from lbnode.lab.wait import wait_until

DEADLINE_S = 30.0
AGENTS_S = 90.0
REPAIRED_S = 10.0
TRY_AGAIN = 75
ATTEMPTS = 5
AT_ONCE = 2
"""What is late when `apply` probes is down for it: on one processor, not all nodes can be probed at once."""
FLOWS = 100

MISTAKES = (
    ("hold_time_s:", "hold_tme_s:"),
    ("role: l7, ipv4: 192.0.2.151", "role: l8, ipv4: 192.0.2.151"),
    ("ipv4: 192.0.2.152", "ipv4: 192.0.2.999"),
    ("mode: tcp", "mode: tpc"),
    ("through: backend", "through: backends"),
    ("path: /health", "path: health"),
)


def apply_alone(stage: Stage) -> None:
    """`lbnode apply` on every node, no agent anywhere: they serve and are announced; a second one plans nothing."""
    every = (*stage.backends, *stage.l7, *stage.l4)
    for names in (stage.backends, stage.l7, stage.l4):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name, done in zip(names, pool.map(lambda name: _apply(stage, name), names), strict=True):
                expect(done.status == 0, f"apply on {name} ends 0", done)
    converge(stage)
    name = stage.l4[0]
    again = stage.lbnode(name, "apply", "--role", "l4")
    expect("nothing to do" in again.out, "a second apply finds nothing to do", again)
    for first in (stage.l4[-1], stage.l7[0], stage.backends[0]):
        plan = stage.lbnode(first, "plan", "--exit-code")
        expect(plan.status == 0, f"nothing left to plan on {first}", plan)
    stage.report.found(f"`apply` alone on {len(every)} nodes: they serve; applied again on {name}: nothing to do")


def _apply(stage: Stage, name: str) -> Done:
    """Until it does not say "try again": programs that start when their file appears take a moment."""
    role = stage.lab.topology.machines[name].role
    for _ in range(ATTEMPTS):
        done = stage.lbnode(name, "apply", "--role", role)
        if done.status != TRY_AGAIN:
            break
    return done


def drift_planned(stage: Stage) -> None:
    """With no agent running: a service removed with ipvsadm shows in `plan`, and `apply` brings it back."""
    name, vip = stage.l4[0], stage.vips[0]
    before = stage.weights(name)
    _remove_service(stage, name, vip)
    plan = stage.lbnode(name, "plan", "--role", "l4", "--exit-code")
    expect(plan.status == 1 and f"+ virtual-service {vip}:80/tcp" in plan.out, f"{vip}:80 in the plan", plan)
    done = stage.lbnode(name, "apply", "--role", "l4")
    expect(done.status == 0 and stage.weights(name) == before, "apply brings it back", done)
    stage.report.found(f"ipvsadm -D {vip}:80 on {name}: in `plan`; back after `apply`")


def drift_repaired(stage: Stage) -> None:
    """With the agent running: what was removed comes back by itself, and the agent says so."""
    name, vip = stage.l4[-1], stage.vips[0]
    before = stage.weights(name)
    _remove_service(stage, name, vip)
    seconds = stage.wait(lambda: stage.weights(name) == before, REPAIRED_S, f"{vip}:80 again on {name}")
    stage.report.times("drift_s", f"ipvsadm -D {vip}:80 on {name} -> repaired", [seconds])
    key = f"{vip}:80/tcp"

    def said() -> str:
        lines = stage.lbnode(name, "status").out.splitlines()
        return next((line.strip() for line in lines if "drift repaired" in line and key in line), "")

    log = stage.supervisor.log(stage.key(name, AGENT)).read_text()
    told = said() or next((line for line in log.splitlines() if "drift repaired" in line and key in line), "")
    expect(told, f"words about {key} in status or log", log[-500:])
    stage.report.found(f"{name} says: {told}")


def _remove_service(stage: Stage, name: str, vip: str) -> None:
    stage.node(name).run(["ipvsadm", "-D", "-t", f"{vip}:80"], check=True)


def foreign_service(stage: Stage) -> None:
    """Puts an IPVS service that is not ours on an L4 node; `foreign_survives` looks for it in the end."""
    node, own = stage.node(stage.l4[0]), stage.address(stage.l4[0], 4)
    node.run(["ipvsadm", "-A", "-t", f"{own}:9999", "-s", "rr"], check=True)
    node.run(["ipvsadm", "-a", "-t", f"{own}:9999", "-r", "192.0.2.200:9999", "-g", "-w", "7"], check=True)


def foreign_survives(stage: Stage) -> None:
    own = stage.address(stage.l4[0], 4)
    table = stage.weights(stage.l4[0])
    expect(table.get((own, 9999)) == {"192.0.2.200": 7}, f"the foreign service {own}:9999 as it was", table)
    stage.report.found(f"{own}:9999 on {stage.l4[0]}, which is not ours, has survived all of it")


def agent_killed(stage: Stage) -> None:
    """SIGKILL of one agent per role: nothing moves; restarted, they plan nothing."""
    victims = (stage.l4[0], stage.l7[0], stage.backends[0])
    stage.crowd.start("agent-killed", mix(FLOWS, ("download", "requests"), stage.steady, stage.clients))
    before, routes = stage.all_weights(), stage.all_routes()
    for name in victims:
        stage.knock_out(name, AGENT)
    stage.wait_for_bytes("agent-killed")
    expect(stage.all_weights() == before and stage.all_routes() == routes, "tables and routes as before", "others")
    for name in victims:
        stage.revive(name, AGENT)
    _wait_for_passes(stage, victims)
    expect(stage.all_routes() == routes, "routes as before", stage.all_routes())
    stage.finish("agent-killed", f"agents of {', '.join(victims)} killed and restarted")
    for name in victims:
        status = stage.lbnode(name, "status", "--json")
        expect('"recent": []' in status.out, f"the new agent on {name} had nothing to change", status)
    stage.report.found("restarted, none of them had anything to change")


def _wait_for_passes(stage: Stage, names: Sequence[str]) -> None:
    """Waits until the agents of these nodes have ended a pass. Asks them directly: a process for each look is dear."""

    def passed(name: str) -> bool:
        try:
            status = stage.node(name).call(lambda: control.ask(PATHS, "status"))
        except NotReady:
            return False
        return status is not None and "cause" in status["last_pass"]

    for name in names:
        wait_until(lambda: passed(name), AGENTS_S, f"a pass of the agent on {name}", 0.1)  # noqa: B023 - waited for


def exabgp_killed(stage: Stage) -> None:
    """SIGKILL of ExaBGP: its routes go, and come back by themselves."""
    name = stage.l4[1]
    stage.crowd.start("exabgp-killed", mix(FLOWS, ("download", "upload"), stage.steady, stage.clients))
    stage.kill(name, EXABGP)
    gone = stage.wait(lambda: not stage.routed(name), DEADLINE_S, f"no route by {name}")
    back = stage.wait(lambda: stage.routed_fully(name), DEADLINE_S, f"every route by {name} again")
    stage.report.times("exabgp_gone_s", f"SIGKILL of ExaBGP on {name} -> its routes gone", [gone])
    stage.report.times("exabgp_back_s", "and all of them back by themselves", [back])
    stage.wait_for_bytes("exabgp-killed")
    stage.finish("exabgp-killed", "meanwhile")


def bad_file(stage: Stage) -> None:
    """A cluster file with six mistakes: all six told at once, and a running agent keeps the last good one."""
    name = stage.l4[0]
    node, good = stage.node(name), stage.node(name).read(CLUSTER_FILE)
    bad = good
    for right, wrong in MISTAKES:
        expect(right in bad, f"{right!r} in the cluster file", "it is not there")
        bad = bad.replace(right, wrong, 1)
    before, routes = stage.all_weights(), stage.all_routes()
    node.write(CLUSTER_FILE, bad)
    try:
        done = stage.lbnode(name, "check")
        places = re.findall(rf"^{re.escape(str(CLUSTER_FILE))}:\d+:\d+: .*", done.out + done.errors, re.MULTILINE)
        expect(done.status == 78 and len(places) == len(MISTAKES), f"exit 78 and {len(MISTAKES)} places", done)
        for line in places:
            stage.report.found(line)
        wait_until(lambda: "cluster file" in stage.lbnode(name, "status").out, DEADLINE_S, "words in the status", 0.5)
        refused = stage.lbnode(name, "apply", "--role", "l4")
        expect(refused.status == 78, "apply refuses it with 78", refused)
        expect(stage.all_weights() == before and stage.all_routes() == routes, "nothing changed", stage.all_weights())
    finally:
        node.write(CLUSTER_FILE, good)
    wait_until(lambda: stage.lbnode(name, "status").status == 0, DEADLINE_S, "a good status again", 0.5)
    stage.report.found(f"exit 78, nothing changed; the agent on {name} kept the last good file, and says so in status")


def start_agents(stage: Stage) -> None:
    """Starts the agents where `apply` has been: they find nothing to do."""
    before, routes = stage.all_weights(), stage.all_routes()
    programs.start_agents(stage.lab, stage.supervisor)
    _wait_for_passes(stage, (*stage.l4, *stage.l7, *stage.backends))
    expect(stage.all_weights() == before and stage.all_routes() == routes, "nothing changed", stage.all_weights())
    stage.report.found("agents started on every node: nothing changed")
