"""What `anycast-bird` must show: two servers in iBGP with their edge router, chosen by the client's address, one of
them preferred, announced to the provider or hidden behind a destination NAT."""

import json
import re
from collections import Counter
from collections.abc import Sequence

from lbnode.lab.build import BIRD_SOCKET, CLUSTER_FILE
from lbnode.lab.clients.crowd import Reply
from lbnode.lab.nat import forwarded
from lbnode.lab.programs import BIRD, WEB
from lbnode.lab.scenarios import anycast
from lbnode.lab.scenarios.anycast import (
    Felt,
    expect_answers,
    give_bird,
    reconfigure,
    shares,
    switched,
    until,
    until_carried,
)
from lbnode.lab.scenarios.network import PORT
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.scenario import Scenario, Step, once
from lbnode.lab.scenarios.stage import Stage

EDGE, ISP = "edge", "isp"
FIRST, SECOND = "server-1", "server-2"
BOTH = (FIRST, SECOND)
EACH = 5
USUAL, LESS = 100, 50


def tables(stage: Stage) -> None:
    """What both routers know of the VIP, in BGP and in their kernels."""
    until_carried(stage, ISP, [EDGE])
    known = preferences(stage)
    expect(known == dict.fromkeys(BOTH, USUAL), f"both servers, with preference {USUAL}, in the table of {EDGE}", known)
    stage.report.found(f"{EDGE}: {_words(known)}, both used; {ISP}: by {EDGE}")
    status, peer = stage.lbnode(FIRST, "status").out, stage.lab.topology.machines[EDGE].addresses(4)[1]
    wanted = ("bgp: BIRD announces what stands in table", f"peer {peer}: up")
    expect(all(words in status for words in wanted), f"status of {FIRST} shows BIRD's session with {EDGE}", status)


def address(stage: Stage) -> None:
    """The client's address decides: each has its server, and another address may have another."""
    chosen = {source: _servers(stage, [source]) for source in stage.clients}
    unsure = {source: counts for source, counts in chosen.items() if len(counts) != 1}
    expect(not unsure, "one server for each client address", unsure)
    by = {name: [source for source, counts in chosen.items() if name in counts] for name in BOTH}
    expect(all(by.values()), "clients for both servers", by)
    for name, sources in by.items():
        stage.report.found(f"{name} answers {', '.join(sources)}, {EACH} times of {EACH}")


def halt(stage: Stage) -> None:
    """BIRD on one server is stopped, as by an operator, and started."""
    speaker = stage.key(SECOND, BIRD)
    seconds, felt = switched(stage, lambda: stage.supervisor.stop(speaker), EDGE, [FIRST])
    _answered_by(stage, FIRST, f"BIRD stopped on {SECOND} -> {FIRST} alone in the kernel of {EDGE}", seconds, felt)
    stage.supervisor.start(speaker)
    seconds = until_carried(stage, EDGE, BOTH)
    stage.report.found(f"started: both after {seconds:.1f} s; {shares(expect_answers(stage, BOTH))}")


def preferred(stage: Stage) -> None:
    """server-2 with local preference 50: used when server-1 fails, and only then."""
    seconds, felt = switched(stage, lambda: _cluster_file(stage, "cluster.preferred.yaml"), EDGE, [FIRST])
    known = preferences(stage)
    expect(known == {FIRST: USUAL, SECOND: LESS}, f"{SECOND} in the table of {EDGE} with preference {LESS}", known)
    _answered_by(stage, FIRST, f"new cluster file -> {FIRST} alone in the kernel of {EDGE}", seconds, felt)
    stage.report.found(f"table of {EDGE}: {_words(known)}")
    seconds, felt = switched(stage, lambda: stage.knock_out(FIRST, WEB), EDGE, [SECOND])
    _answered_by(stage, SECOND, f"web server of {FIRST} killed -> {SECOND} in the kernel of {EDGE}", seconds, felt)
    seconds, felt = switched(stage, lambda: stage.revive(FIRST, WEB), EDGE, [FIRST])
    _answered_by(stage, FIRST, f"web server of {FIRST} started -> {FIRST} again", seconds, felt)
    _cluster_file(stage, "cluster.yaml")
    until_carried(stage, EDGE, BOTH)
    stage.report.found(f"without preference: {shares(expect_answers(stage, BOTH))}")


def _answered_by(stage: Stage, name: str, what: str, seconds: float, felt: Felt) -> None:
    """Requires that one server answers all requests now, and says what led to that."""
    expect_answers(stage, [name])
    stage.report.found(f"{what}: {seconds * 1000:.0f} ms")
    stage.report.found(f"{felt}; then all by {name}")


def nat(stage: Stage) -> None:
    """The edge router's own address stands for the VIP, of which the provider hears nothing."""
    public = stage.lab.topology.machines[EDGE].addresses(4)[0]
    reconfigure(stage, EDGE, "edge-nat.conf.j2")
    until(stage, lambda: not stage.carriers(ISP, stage.vips[0]), f"no route to the VIP on {ISP}")
    unanswered = stage.crowd.get(stage.vips[0], stage.clients[0])
    expect(unanswered.problem, "the VIP out of reach for clients", unanswered)
    stage.report.found(f"{ISP} has no route to {stage.vips[0]} any more; a client hears {unanswered.problem!r}")
    with forwarded(stage.node(EDGE), public, PORT, stage.vips[0]):
        replies = _asked(stage, stage.clients, public, "/whoami")
        seen = [(json.loads(reply.body)["peer"], reply.source) for reply in replies]
        expect(all(peer == source for peer, source in seen), "the client's own address seen by servers", seen[:2])
        counts = _servers(stage, stage.clients, public)
        expect(set(counts) == set(BOTH), "answers from both", dict(counts))
        stage.report.found(f"http://{public}/: {shares(counts)}; servers see the clients' own addresses")
        _, felt = switched(stage, lambda: stage.knock_out(SECOND, WEB), EDGE, [FIRST], [public])
        counts = _servers(stage, stage.clients, public)
        expect(set(counts) == {FIRST}, f"answers from {FIRST} alone", dict(counts))
        stage.report.found(f"web server of {SECOND} killed: {felt}; then {shares(counts)}")
        stage.revive(SECOND, WEB)
        until_carried(stage, EDGE, BOTH)
        counts = _servers(stage, stage.clients, public)
        expect(set(counts) == set(BOTH), "answers from both again", dict(counts))
    reconfigure(stage, EDGE, "edge.conf.j2")
    until_carried(stage, ISP, [EDGE])


def _asked(stage: Stage, sources: Sequence[str], vip: str, path: str) -> list[Reply]:
    replies = stage.crowd.ask([(source, vip) for source in sources for _ in range(EACH)], path)
    bad = [reply for reply in replies if reply.status != 200]
    expect(not bad, f"all of {len(replies)} requests to {vip} answered", bad[:1])
    return replies


def _servers(stage: Stage, sources: Sequence[str], vip: str = "") -> Counter[str]:
    """Who answers, how often."""
    return Counter(reply.backend for reply in _asked(stage, sources, vip or stage.vips[0], "/"))


def preferences(stage: Stage) -> dict[str, int]:
    """Server -> local preference of the VIP's route by it, in the edge router's BGP table."""
    argv = ["birdc", "-s", str(BIRD_SOCKET), "show", "route", "for", stage.vips[0], "all"]
    text = stage.node(EDGE).run(argv, check=True).stdout
    hops = map(stage.name_of, re.findall(r"BGP\.next_hop: (\S+)", text))
    return dict(sorted(zip(hops, map(int, re.findall(r"BGP\.local_pref: (\d+)", text)), strict=True)))


def _words(known: dict[str, int]) -> str:
    return ", ".join(f"{name} with local preference {value}" for name, value in known.items())


def _cluster_file(stage: Stage, name: str) -> None:
    """Another cluster file for both servers, and for their BIRD what `lbnode render bird` makes of it."""
    text = (stage.lab.topology.folder / name).read_text(encoding="utf-8")
    for server in BOTH:
        stage.node(server).write(CLUSTER_FILE, text)
        done = stage.lbnode(server, "render", "bird")
        expect(done.status == 0, "lbnode render bird works", done)
        give_bird(stage, server, done.out)


STEPS = (
    Step("tables", "the routers' tables", once(tables)),
    Step("address", "the client's address decides", once(address)),
    Step("halt", "BIRD is stopped on server-2", once(halt)),
    Step("preferred", "server-1 is preferred", once(preferred)),
    Step("nat", "no public address on the servers", once(nat)),
)
SCENARIO = Scenario(STEPS, anycast.play)
