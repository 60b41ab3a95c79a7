"""What `anycast-exabgp` must show: servers that announce their service by ExaBGP while their own check is good, a
router that spreads flows, its limit of next hops, and route servers in between that lift it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path

from lbnode.lab.clients.crowd import mix, pairs
from lbnode.lab.programs import PATHS, WEB
from lbnode.lab.scenarios import anycast
from lbnode.lab.scenarios.anycast import (
    Requests,
    expect_answers,
    shares,
    until,
    until_announced,
    until_carried,
    until_withdrawn,
)
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.scenario import Scenario, Step, once
from lbnode.lab.scenarios.stage import Stage

ROUTER = "r1"
SESSIONS, SESSION_TICK_S, SESSION_ROUNDS = 80, 0.5, 4
EACH = 10
LEAST_SHARE = 0.5
"""Of an even share: a hash over some hundred flows is not exact."""
LATE = 5
"""Requests that may be under way, and lost, when a server that still answers leaves: the router moves flows."""
GONE = ("connect: No route to host", "connect: Network is unreachable")
"""What an `unreachable` route makes of a connection, IPv4 and IPv6."""


def spread(stage: Stage) -> None:
    """Flows, not packets and not clients, are spread: each connection of a client may go elsewhere."""
    counts = expect_answers(stage, stage.announcers, EACH)
    even = sum(counts.values()) / len(stage.announcers)
    expect(min(counts.values()) > LEAST_SHARE * even, "a fair share for every server", dict(counts))
    stage.report.found(f"{sum(counts.values())} requests from {len(stage.clients)} addresses: {shares(counts)}")


def sessions_stick(stage: Stage) -> None:
    """A TCP session sticks to one next hop: any other server would reset it."""
    group = "sessions"
    stage.crowd.start(group, mix(SESSIONS, ("requests",), stage.vips, stage.clients), SESSION_TICK_S)
    until(stage, lambda: min(r.rounds for r in stage.crowd.look(group)) >= SESSION_ROUNDS, "rounds on every session")
    reports = stage.finish(group, f"sessions of {SESSION_ROUNDS} requests and more, each to one server")
    held = Counter(report.backend for report in reports)
    expect(set(held) == set(stage.announcers), "sessions on every server", dict(held))
    stage.report.found(f"sessions: {shares(held)}")


def check_fails(stage: Stage, rounds: int) -> None:
    """The health page of one server after the other fails, and recovers; they go on serving."""
    _out_and_back(stage, rounds, anycast.SICK, "health page fails", "health page is good again")


def disable_file(stage: Stage, rounds: int) -> None:
    """`touch /etc/lb/disable` on one server after the other."""
    _out_and_back(stage, rounds, PATHS.disable, "touch disable", "rm disable")


def _out_and_back(stage: Stage, rounds: int, path: Path, out: str, again: str) -> None:
    """A file that takes servers out while it is there. They answer until they are left, so hardly a request is lost."""
    gone, back = [], []
    requests = Requests(stage)
    for name in islice(cycle(stage.announcers), rounds):
        with stage.file(name, path, ""):
            gone.append(until_withdrawn(stage, [name]))
        back.append(until_announced(stage, [name]))
    felt = requests.felt()
    stage.report.times(f"{path.name}_s", f"{out} -> no next hop any more in its routers' kernels", gone)
    stage.report.times(f"{path.name}_back_s", f"{again} -> a next hop again", back)
    stage.report.found(f"meanwhile {felt}")
    expect(felt.failed <= LATE * rounds, "hardly a request lost", felt)


def server_dies(stage: Stage) -> None:
    """The web server of one machine is killed under sessions and requests, and started again."""
    victim, group = stage.announcers[0], "dies"
    stage.crowd.start(group, mix(SESSIONS, ("requests",), stage.vips, stage.clients), SESSION_TICK_S)
    held = {report.flow: report.backend for report in stage.crowd.look(group)}
    requests = Requests(stage)
    stage.knock_out(victim, WEB)
    seconds = until_withdrawn(stage, [victim])
    stage.crowd.meet(group)
    felt = requests.felt()
    counts = expect_answers(stage, set(stage.announcers) - {victim})
    reports = stage.crowd.finish(group)
    others = [report for report in reports if held[report.flow] != victim]
    moved = sum(bool(report.broken) for report in others)
    stage.report.times("killed_s", f"web server of {victim} killed -> no next hop any more", [seconds])
    stage.report.found(f"{felt}; then {shares(counts)}")
    stage.report.found(
        f"sessions: {len(reports) - len(others)} died with {victim}; of {len(others)} on others {moved} were moved by"
        " the router, and reset: there is no tier 2 to keep them"
    )
    stage.revive(victim, WEB)
    seconds = until_announced(stage, [victim])
    counts = expect_answers(stage, stage.announcers, EACH)
    stage.report.found(f"started again: a next hop after {seconds:.1f} s; {shares(counts)}")


def all_fail(stage: Stage) -> None:
    """Every health page fails: nobody is left, clients are told so at once, and all come back."""
    with sick(stage, stage.announcers):
        seconds = until_withdrawn(stage, stage.announcers)
        replies = stage.crowd.ask(pairs(stage.vips, [*stage.clients[:2], *stage.clients[-2:]]))
    others = [reply for reply in replies if reply.problem not in GONE]
    expect(not others, "every client told that the VIP is unreachable", others[:2])
    told = ", ".join(sorted({reply.problem for reply in replies}))
    stage.report.found(f"all health pages fail: withdrawn everywhere after {seconds:.1f} s; clients: {told}")
    seconds = until_announced(stage, stage.announcers)
    counts = expect_answers(stage, stage.announcers, EACH)
    stage.report.found(f"all good again: all are next hops after {seconds:.1f} s; {shares(counts)}")


def limit(stage: Stage) -> None:
    """A router that takes two next hops: of servers that are announced to it, two serve; behind route servers, all."""
    before = stage.carriers(ROUTER, stage.vips[0])
    tiered = stage.lab.topology.scale == "tiered"
    anycast.reconfigure(stage, ROUTER, "two-next-hops.conf.j2")
    until(stage, lambda: all(len(stage.carriers(ROUTER, vip)) == 2 for vip in stage.vips), f"two next hops on {ROUTER}")
    counts = anycast.heard(stage, EACH)
    hops = ", ".join(sorted(stage.carriers(ROUTER, stage.vips[0])))
    stage.report.found(f"{ROUTER} with at most 2 next hops ({hops}): {shares(counts)}")
    idle = len(stage.announcers) - len(counts)
    expect((idle == 0) == tiered, "idle servers unless there is a tier in between", dict(counts))
    stage.report.found(
        f"{len(counts)} servers by 2 next hops: the limits of both tiers multiply"
        if tiered
        else f"{idle} of {len(stage.announcers)} servers announced for nothing"
    )
    anycast.reconfigure(stage, ROUTER, "router.conf.j2")
    until_carried(stage, ROUTER, before)


def behind(stage: Stage) -> None:
    """Behind route servers one server more or less is no news to the router; the last one of a route server is."""
    share = [name for name in stage.announcers if name in stage.carriers("rs1", stage.vips[0])]
    with sick(stage, share[:1]):
        until_withdrawn(stage, share[:1])
        expect_answers(stage, set(stage.announcers) - set(share[:1]), EACH)
        expect(stage.carriers(ROUTER, stage.vips[0]) == {"rs1", "rs2"}, "both route servers used", stage.all_routes())
    stage.report.found(f"{share[0]} sick: no next hop of rs1 any more; {ROUTER} goes on with rs1 and rs2")
    until_announced(stage, share)
    with sick(stage, share):
        seconds = until_carried(stage, ROUTER, ["rs2"])
        expect_answers(stage, set(stage.announcers) - set(share), EACH)
    stage.report.found(f"{' and '.join(share)} sick: {ROUTER} leaves rs1 after {seconds:.1f} s")
    until_announced(stage, share)
    until_carried(stage, ROUTER, ["rs1", "rs2"])
    counts = expect_answers(stage, stage.announcers, EACH)
    stage.report.found(f"all good again: {shares(counts)}")


@contextmanager
def sick(stage: Stage, names: Sequence[str]) -> Iterator[None]:
    """Servers whose health pages fail."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(stage.file(name, anycast.SICK, ""))
        yield


STEPS = (
    Step("spread", "requests from every client to every VIP", once(spread)),
    Step("sessions", "TCP sessions stick", once(sessions_stick)),
    Step("check", "a server's check fails, and recovers", check_fails),
    Step("disable", "`touch /etc/lb/disable`", disable_file),
    Step("killed", "a web server is killed", once(server_dies)),
    Step("all", "every check fails", once(all_fail)),
    Step("limit", "a router with a limit of two next hops", once(limit)),
    Step("behind", "servers come and go behind the route servers", once(behind), scales=("tiered",)),
)
SCENARIO = Scenario(STEPS, anycast.play)
