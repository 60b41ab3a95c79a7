"""Steps that take machines out of service and let them fail, under flows that last: maintenance on every tier, and an
L7 node that dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

from lbnode.lab.account import Flow
from lbnode.lab.clients.crowd import mix, pairs
from lbnode.lab.programs import HAPROXY, PATHS
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.planned import datagrams
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage, require_whole

SLOW_FLOWS, UDP_FLOWS = 210, 60
FEWER_FLOWS = 120
DEADLINE_S = 30.0


def l4_disable(stage: Stage, rounds: int) -> None:
    """`touch /etc/lb/disable` on one L4 node after the other, under slow downloads, uploads and flows by UDP."""
    group = "l4-disable"
    by_tcp = mix(SLOW_FLOWS, ("download", "upload"), stage.steady, stage.clients)
    by_udp = datagrams(stage, UDP_FLOWS)
    stage.crowd.start(group, [*by_tcp, *by_udp])
    stage.report.found(f"{len(by_tcp)} slow downloads and uploads run, and {len(by_udp)} flows by UDP")
    gone, back = [], []
    for name in islice(cycle(stage.l4), rounds):
        with stage.file(name, PATHS.disable, ""):
            gone.append(_until_unrouted(stage, name))
            stage.wait_for_bytes(group)
        back.append(_until_routed(stage, name))
    stage.wait_for_bytes(group)
    stage.report.times("disable_s", "touch disable -> routes gone from both routers' kernels", gone)
    stage.report.times("enable_s", "rm disable -> routes there again", back)
    reports = stage.finish(group, "through all of it")
    answered = sum(report.rounds for report in reports if report.flow.protocol == "udp")
    lost = sum(report.lost for report in reports)
    stage.report.found(f"by UDP: {answered} datagrams answered, each by its flow's own server, and {lost} lost")


def _steady_l7(stage: Stage) -> list[str]:
    return [vip for vip in stage.vips_of("l7") if vip in stage.steady]


def l7_killed(stage: Stage) -> None:
    """HAProxy dies on one L7 node: weight 0, no row removed, and the flows of the others live through an ECMP move."""
    victim, moved = stage.l7[0], stage.l4[0]
    before = {name: stage.weights(name) for name in stage.l4}
    stage.crowd.start("l7-killed", mix(FEWER_FLOWS, ("download", "upload"), _steady_l7(stage), stage.clients))
    at = flows_of(stage)
    stage.knock_out(victim, HAPROXY)
    seconds = stage.wait(lambda: stage.weights_of(victim) == {0}, DEADLINE_S, f"weight 0 for {victim} on every L4 node")
    stage.report.times("l7_killed_s", f"SIGKILL of HAProxy on {victim} -> weight 0 on every L4 node", [seconds])
    rows = {name: {key: set(table) for key, table in stage.weights(name).items()} for name in stage.l4}
    expect(
        rows == {name: {key: set(table) for key, table in tables.items()} for name, tables in before.items()},
        "every destination still there",
        rows,
    )
    stage.report.found("no destination was deleted")
    requests_answered(stage, "with one L7 node dead")
    with stage.file(moved, PATHS.disable, ""):
        _until_unrouted(stage, moved)
        stage.wait_for_bytes("l7-killed", lambda report: at.get(report.flow) != victim)
    _until_routed(stage, moved)
    stage.revive(victim, HAPROXY)
    seconds = stage.wait(lambda: stage.all_weights() == before, DEADLINE_S, f"the weights of before for {victim}")
    stage.report.times("l7_back_s", f"HAProxy started on {victim} -> its old weight on every L4 node", [seconds])
    reports = stage.crowd.finish("l7-killed")
    others = [report for report in reports if at.get(report.flow) != victim]
    require_whole(others, "the flows on the other L7 nodes, through an ECMP move")
    stage.report.found(
        f"of {len(reports)} flows {len(reports) - len(others)} were on {victim}; of the other {len(others)}, 0 broken,"
        f" also when {moved} left ECMP"
    )


def l7_drain(stage: Stage) -> None:
    """`lbnode drain` on an L7 node: its flows end by themselves, new ones go elsewhere; then `ready`."""
    victim = stage.l7[1]
    reports = stage.crowd.start("l7-drain", mix(FEWER_FLOWS, ("download", "upload"), _steady_l7(stage), stage.clients))
    old = {flow for flow, real in flows_of(stage).items() if real == victim}
    count = sum(report.flow in old for report in reports)
    expect(count, f"flows on {victim}", "none")
    with drained(stage, victim, "drain"):
        requests_answered(stage, f"with {victim} draining")
        new = [flow for flow, real in flows_of(stage).items() if real == victim and flow not in old]
        expect(not new, f"no new flow on {victim}", new)
        stage.wait_for_bytes("l7-drain")
        stage.finish("l7-drain", f"{count} flows on {victim} ended by themselves; of all")


def l7_down(stage: Stage) -> None:
    """`down` in an L7 node's agent-check file."""
    victim = stage.l7[2]
    with stage.file(victim, PATHS.agent_check, "down\n"):
        stage.wait(lambda: stage.weights_of(victim) == {0}, DEADLINE_S, f"weight 0 for {victim}")
        requests_answered(stage, f"with {victim} down")
    seconds = stage.wait(lambda: 0 not in stage.weights_of(victim), DEADLINE_S, f"{victim} in use again")
    stage.report.found(f"`down` on {victim}: out on every L4 node; file removed: back after {seconds:.1f} s")


def backend_down(stage: Stage) -> None:
    """`down` in a backend's agent-check file: no one gets it, through HAProxy or directly."""
    victim = stage.backends[0]
    with stage.file(victim, PATHS.agent_check, "down\n"):
        seconds = _until_unheard(stage, victim)
        stage.report.times("backend_down_s", f"`down` on {victim} -> no answer from it any more", [seconds])
    seconds = stage.wait(lambda: victim in _heard(stage), DEADLINE_S, f"answers from {victim}")
    _all_in_use(stage, victim)
    stage.report.found(f"file removed: {victim} answers again after {seconds:.1f} s")


def backend_drain(stage: Stage) -> None:
    """`lbnode drain` on a backend, under flows: those it has end by themselves."""
    victim = stage.backends[1]
    reports = stage.crowd.start("backend-drain", mix(FEWER_FLOWS, ("download",), stage.steady, stage.clients))
    count = sum(report.backend == victim for report in reports)
    done = stage.lbnode(victim, "drain", "--reason", "lab")
    expect(done.status == 0, "lbnode drain works", done)
    seconds = _until_unheard(stage, victim)
    stage.report.times("backend_drain_s", f"`drain` on {victim} -> no new request gets there", [seconds])
    stage.finish("backend-drain", f"{count} downloads from {victim} ended by themselves; of all")
    stage.lbnode(victim, "ready")
    stage.wait(lambda: victim in _heard(stage), DEADLINE_S, f"answers from {victim}")
    _all_in_use(stage, victim)


@contextmanager
def drained(stage: Stage, victim: str, verb: str) -> Iterator[None]:
    """Runs `lbnode <verb>` on a real server, waits until every L4 node has it at weight 0, and undoes it afterwards."""
    done = stage.lbnode(victim, verb, "--reason", "lab")
    expect(done.status == 0, f"lbnode {verb} works", done)
    seconds = stage.wait(lambda: stage.weights_of(victim) == {0}, DEADLINE_S, f"weight 0 for {victim}")
    stage.report.times(f"{verb}_s", f"lbnode {verb} on {victim} -> weight 0 on every L4 node", [seconds])
    yield
    stage.lbnode(victim, "ready")
    _all_in_use(stage, victim)


def _until_unrouted(stage: Stage, name: str) -> float:
    return stage.wait(lambda: not stage.routed(name), DEADLINE_S, f"no route by {name} on any router")


def _until_routed(stage: Stage, name: str) -> float:
    return stage.wait(lambda: stage.routed_fully(name), DEADLINE_S, f"every route by {name} again")


def _all_in_use(stage: Stage, name: str) -> None:
    stage.wait(lambda: 0 not in stage.weights_of(name), DEADLINE_S, f"{name} in use on every L4 node")


def flows_of(stage: Stage) -> dict[Flow, str]:
    """Every client's flow in the L4 nodes' tables, with the name of the real server it is on."""
    clients = set(stage.clients)
    tables = [sight.connections(stage.node(name)) for name in stage.l4]
    found = [(flow, real) for table in tables for flow, real in table.items()]
    return {flow: stage.name_of(real) for flow, real in found if flow.source in clients}


def requests_answered(stage: Stage, when: str) -> None:
    """Requires an answer to one request to every VIP from every tenth client."""
    replies = stage.crowd.ask(pairs(stage.vips, stage.clients[::10]))
    bad = [reply for reply in replies if reply.status != 200]
    expect(not bad, f"all of {len(replies)} new requests answered {when}", f"{len(bad)} were not, such as {bad[:1]}")
    stage.report.found(f"{when}: {len(replies)} of {len(replies)} new requests answered")


def _heard(stage: Stage) -> set[str]:
    """The backends that answer a round of requests: two per backend, L7 node and VIP."""
    asks = pairs(stage.vips, stage.clients[:4])
    count = 2 * len(stage.backends) * len(stage.l7)
    replies = stage.crowd.ask(list(islice(cycle(asks), max(count, len(asks)))))
    bad = [reply for reply in replies if reply.status != 200]
    expect(not bad, "an answer to every request", bad[:2])
    return {reply.backend for reply in replies}


def _until_unheard(stage: Stage, name: str) -> float:
    return stage.wait(lambda: name not in _heard(stage), DEADLINE_S, f"no more answers from {name}")
