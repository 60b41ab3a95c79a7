"""What `anycast-frr` must show: servers that announce their service themselves over FRR, by BGP unnumbered with BFD.

lbnode's agent on a server checks the service and keeps a route in a table; FRR there imports the table and tells the
leaf; leaves tell the spines; the spines spread flows over all leaves that have the VIP.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice

from lbnode.lab import bpf, outage, programs
from lbnode.lab.clients.crowd import pairs
from lbnode.lab.programs import AGENT, WEB
from lbnode.lab.scenarios.leaf_spine import (
    DEADLINE_S,
    ask,
    cable,
    expect_answers,
    leaf_of,
    leaves,
    others,
    shares,
    spines,
    until_leaves,
    vtysh,
)
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.scenario import Scenario, Step, Steps, once, show
from lbnode.lab.scenarios.stage import Stage
from lbnode.resources import ANNOUNCE_LINK, FIRST_CHOICE

STARTED_S = 120.0
BGPD = "bgpd"
STRAY = "203.0.113.99/32"
"""Neither announceable by the cluster file, nor in the leaves' prefix list."""
BFD_GOAL_S = 1.0
GRACEFUL_SHUTDOWN = "graceful-shutdown"
LEAST_SHARE = 0.5
"""Of an even share: a hash over some hundred flows is not exact."""


def play(stage: Stage, steps: Steps, rounds: int) -> None:
    """Every spine has every VIP over every leaf, and every VIP answers; then the steps."""
    programs.start_nodes(stage.lab, stage.supervisor)
    with stage.report.step("agents on every server"):
        seconds = until_leaves(stage, leaves(stage), STARTED_S)
        stage.wait(lambda: all(reply.status == 200 for reply in ask(stage, 1)), DEADLINE_S, "an answer from every VIP")
        stage.report.found(
            f"every VIP over all leaves on both spines, after {seconds:.1f} s more, and every VIP answers"
        )
    show(stage, steps, rounds)


def next_hops(stage: Stage) -> None:
    """Four next hops on the spines; on a leaf its server alone, an IPv4 route by way of an IPv6 link-local address."""
    for spine in spines(stage):
        carried = {vip: stage.carriers(spine, vip) for vip in stage.vips}
        expect(all(hops == set(leaves(stage)) for hops in carried.values()), "four leaves for every VIP", carried)
        stage.report.found(f"{spine}: {'; '.join(f'{vip} over {len(hops)} leaves' for vip, hops in carried.items())}")
    for server in stage.announcers:
        leaf = leaf_of(stage, server)
        carried = {vip: stage.carriers(leaf, vip) for vip in stage.vips}
        expect(all(hops == {server} for hops in carried.values()), f"{leaf} sends VIPs to {server} alone", carried)
    vip = next(vip for vip in stage.vips if ":" not in vip)
    shown = stage.node(leaf).run(["ip", "route", "show", vip], check=True).stdout.strip()
    expect("via inet6 fe80::" in shown, "an IPv4 route by an IPv6 next hop", shown)
    stage.report.found(f"{leaf}: {shown}")
    doctor = stage.lbnode(server, "doctor", "--role", "backend").out
    wanted = ("bgp speaker: FRR runs", f"announced: {len(stage.vips)} of {len(stage.vips)} VIPs")
    expect(all(words in doctor for words in wanted), f"doctor finds all announced on {server}", doctor)
    status, wanted = stage.lbnode(server, "status").out, ("bgp: FRR announces", f"peer {cable(stage, server)}: up")
    expect(all(words in status for words in wanted), f"status of {server} shows FRR's session", status)


def spread(stage: Stage) -> None:
    """Clients are answered by every server, each flow by one."""
    counts = expect_answers(stage, stage.announcers)
    even = counts.total() / len(counts)
    expect(min(counts.values()) > LEAST_SHARE * even, "a fair share for every server", dict(counts))
    stage.report.found(f"{counts.total()} requests from {len(stage.clients)} addresses: {shares(counts)}")
    rows = {}
    for source in stage.clients[:3]:
        replies = stage.crowd.ask([pair for pair in pairs(stage.vips, [source]) for _ in range(12)])
        rows[source] = [shares(Counter(reply.backend for reply in replies))]
    stage.report.table(["client", "answered by"], rows)


def web_stopped(stage: Stage, rounds: int) -> None:
    """The web server of one machine after the other is stopped, and started again."""
    gone, back = [], []
    for server in islice(cycle(stage.announcers), rounds):
        stage.supervisor.stop(stage.key(server, WEB))
        gone.append(until_leaves(stage, others(stage, server)))
        expect_answers(stage, set(stage.announcers) - {server})
        stage.revive(server, WEB)
        back.append(until_leaves(stage, leaves(stage)))
    expect_answers(stage, stage.announcers)
    stage.report.times("frr_check_failed_s", "web server stopped -> three next hops on both spines", gone)
    stage.report.times("frr_check_good_s", "started -> four again", back)


def disable_file(stage: Stage, rounds: int) -> None:
    """`touch /etc/lb/disable` on one server after the other: each is a second choice first, then withdrawn."""
    gone, back = [], []
    for server in islice(cycle(stage.announcers), rounds):
        leaf, port = leaf_of(stage, server), cable(stage, server)
        with stage.file(server, programs.PATHS.disable, ""):
            gone.append(until_leaves(stage, others(stage, server)))
            told = _told(stage, leaf, port)
            expect(told == GRACEFUL_SHUTDOWN, f"{leaf} still has {server}'s route, as GRACEFUL_SHUTDOWN", told)
            stage.wait(partial(_withdrawn, stage, leaf, port), DEADLINE_S, f"no VIP from {server} on {leaf}")
        back.append(until_leaves(stage, leaves(stage)))
    stage.report.found("each VIP was announced with GRACEFUL_SHUTDOWN at first: routers chose others, then withdrawn")
    stage.report.times("frr_disable_s", "touch disable -> three next hops on both spines", gone)
    stage.report.times("frr_enable_s", "rm disable -> four again", back)


def _withdrawn(stage: Stage, leaf: str, port: str) -> bool:
    return _told(stage, leaf, port) is None


def _told(stage: Stage, leaf: str, port: str) -> str | None:
    """The communities of the IPv4 VIP as a leaf has it from its server; None when it does not."""
    vip = next(vip for vip in stage.vips if ":" not in vip)
    paths = vtysh(stage, leaf, f"show bgp ipv4 unicast {vip}/32").get("paths", [])
    mine = [path for path in paths if path["peer"].get("interface") == port]
    return mine[0].get("community", {}).get("string", "") if mine else None


@contextmanager
def silent(stage: Stage, server: str) -> Iterator[None]:
    """A server whose cable carries nothing, and neither end is told."""
    node, port = stage.node(server), [cable(stage, server)]
    bpf.attach(node, port, outage.DROP, outage.BOTH_WAYS)
    try:
        yield
    finally:
        bpf.detach(node, port, outage.DROP, outage.BOTH_WAYS)


def link_silent(stage: Stage, rounds: int) -> None:
    """The cable of one server after the other goes silent: BFD notices, long before the hold time."""
    gone, back = [], []
    for server in islice(cycle(stage.announcers), rounds):
        with silent(stage, server):
            gone.append(until_leaves(stage, others(stage, server)))
            leaf, port = leaf_of(stage, server), cable(stage, server)
            session = vtysh(stage, leaf, f"show bgp neighbors {port}")[port]
            why = {key: value for key, value in session.items() if key.startswith("last")}
            expect("BFD Down" in str(why), f"{leaf} ended its session with {server} because of BFD", why)
            expect_answers(stage, set(stage.announcers) - {server})
        back.append(until_leaves(stage, leaves(stage)))
    expect_answers(stage, stage.announcers)
    stage.report.times("frr_bfd_s", "a server's cable silent -> three next hops on both spines, by BFD", gone)
    stage.report.found(f"goal: under {BFD_GOAL_S:g} s; without BFD it is the hold time, {_hold(stage)} s")
    stage.report.times("frr_link_back_s", "the cable carries again -> four again", back)


def _hold(stage: Stage) -> int:
    return stage.lab.topology.cluster.bgp.hold_time_s


def stray_prefix(stage: Stage) -> None:
    """A server announces what it must not: its own guard refuses it, and where that is gone, the leaf's prefix list."""
    server = stage.announcers[0]
    _stray_route(stage, server, "add")
    seen = f"show bgp vrf {ANNOUNCE_LINK} ipv4 unicast"
    stage.wait(lambda: STRAY in vtysh(stage, server, seen)["routes"], DEADLINE_S, f"{STRAY} seen by FRR on {server}")
    sent = _sent(stage, server)
    expect(sent and STRAY not in sent, f"{server} tells its leaf of its VIP and nothing else", sent)
    stage.report.found(f"{STRAY} in {server}'s table: FRR sees it, and its guard keeps it; told: {', '.join(sent)}")
    plan = stage.lbnode(server, "plan", "--role", "backend").out
    expect(f"left alone: route {STRAY} in table" in plan, "the plan tells of the stranger's route", plan)
    _without_guard(stage, server)
    _stray_route(stage, server, "del")
    stage.kill(server, BGPD)
    until_leaves(stage, others(stage, server))
    until_leaves(stage, leaves(stage))
    expect(STRAY not in _sent(stage, server), "the guard is back, as bgpd is", _sent(stage, server))


def _without_guard(stage: Stage, server: str) -> None:
    """Somebody has taken the guard out of a server's FRR."""
    leaf, port = leaf_of(stage, server), cable(stage, server)
    lines = [
        "configure terminal",
        "route-map ROGUE permit 10",
        f"router bgp {stage.lab.topology.cluster.bgp.local_asn}",
        "address-family ipv4 unicast",
        "no import vrf route-map LBNODE-GUARD",
        f"import vrf {ANNOUNCE_LINK}",
        f"neighbor {port} route-map ROGUE out",
    ]
    stage.node(server).run(["vtysh", *(word for line in lines for word in ("-c", line))], check=True)
    stage.wait(lambda: STRAY in _sent(stage, server), DEADLINE_S, f"{STRAY} told to {leaf}")
    known = vtysh(stage, leaf, "show bgp ipv4 unicast")["routes"]
    expect(STRAY not in known, f"{leaf} takes VIPs only", sorted(known))
    having = [name for name, routes in stage.all_routes().items() if STRAY.partition("/")[0] in routes]
    expect(not having, f"no router has {STRAY}", having)
    stage.report.found(f"guard taken away: {server} tells {leaf} of it, whose prefix list refuses it")


def _stray_route(stage: Stage, server: str, verb: str) -> None:
    table = str(stage.lab.topology.cluster.bgp.table)
    route = ["blackhole", STRAY, "table", table, "metric", str(FIRST_CHOICE)]
    stage.node(server).run(["ip", "route", verb, *route], check=True)


def _sent(stage: Stage, server: str) -> list[str]:
    """The IPv4 prefixes that a server's FRR tells its leaf of."""
    told = vtysh(stage, server, f"show bgp ipv4 unicast neighbors {cable(stage, server)} advertised-routes")
    return list(told["advertisedRoutes"])


def leaf_dies(stage: Stage, rounds: int) -> None:
    """One leaf after the other stands still, with its cables connected."""
    gone, back = [], []
    for server in islice(cycle(stage.announcers), rounds):
        leaf = leaf_of(stage, server)
        outage.suspend(stage.lab, stage.supervisor, leaf)
        gone.append(until_leaves(stage, others(stage, server)))
        expect_answers(stage, set(stage.announcers) - {server})
        outage.resume(stage.lab, stage.supervisor, leaf)
        back.append(until_leaves(stage, leaves(stage)))
    expect_answers(stage, stage.announcers)
    stage.report.times("frr_leaf_s", "a leaf stands still -> three next hops on both spines", gone)
    stage.report.times("frr_leaf_back_s", "it goes on -> four again", back)


def programs_die(stage: Stage) -> None:
    """lbnode's agent is killed: nothing changes. FRR's bgpd is killed: it comes back, and finds all in the table."""
    server = stage.announcers[-1]
    stage.knock_out(server, AGENT)
    stage.kill(server, BGPD)
    seconds = until_leaves(stage, others(stage, server))
    back = until_leaves(stage, leaves(stage))
    stage.report.found(
        f"no agent on {server}, bgpd killed: three next hops after {seconds:.2f} s, four {back:.1f} s later"
    )
    stage.revive(server, AGENT)
    expect_answers(stage, stage.announcers)


SCENARIO = Scenario(
    (
        Step("hops", "four next hops on the spines", once(next_hops)),
        Step("spread", "requests from every client to every VIP", once(spread)),
        Step("stopped", "a web server is stopped, and started", web_stopped),
        Step("disable", "`touch /etc/lb/disable`", disable_file),
        Step("bfd", "the cable of a server goes silent", link_silent),
        Step("prefix", "a server announces what it must not", once(stray_prefix)),
        Step("leaf", "a leaf stands still", leaf_dies),
        Step("programs", "agent and bgpd of a server are killed", once(programs_die)),
    ),
    play,
    rounds=3,
)
