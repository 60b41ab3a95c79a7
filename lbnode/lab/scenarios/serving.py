"""Steps that show that the network serves: who answers, whose address is seen, and which way the replies go."""

import json
from collections import Counter
from collections.abc import Sequence

from lbnode.lab import web
from lbnode.lab.account import Flow
from lbnode.lab.clients.crowd import Planned, Reply, pairs
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage

CONVERGED_S = 30.0
CONVERGED_PER_NODE_S = 5.0
LARGE = web.SIZES[-1]


def converge(stage: Stage) -> None:
    """Every router has every VIP over every L4 node, and every L4 node has every real server in use."""
    deadline_s = CONVERGED_S + CONVERGED_PER_NODE_S * len(stage.lab.topology.machines)
    seconds = stage.wait(lambda: all(map(stage.routed_fully, stage.l4)), deadline_s, "every VIP by every L4 node")
    stage.report.found(f"every router has every VIP over all {len(stage.l4)} L4 nodes, after {seconds:.1f} s more")

    stage.wait(stage.all_in_use, deadline_s, "weights above 0 for every real server on every L4 node")
    stage.wait(lambda: _all_answer(stage), deadline_s, "an answer from every VIP")
    stage.report.found("every real server is in use on every L4 node, and every VIP answers")


def _all_answer(stage: Stage) -> bool:
    first = [stage.lab.topology.clients.addresses(version)[0] for version in (4, 6)]
    return all(reply.status == 200 for reply in stage.crowd.ask(pairs(stage.vips, first)))


def spread(stage: Stage) -> None:
    """Requests from every client address to every VIP, and datagrams to those by UDP; a table of who carried and who
    answered them."""
    asks = pairs(stage.vips, stage.clients)
    replies = stage.crowd.ask(asks)
    bad = [reply for reply in replies if reply.status != 200 or reply.body.strip() not in stage.backends]
    expect(not bad, f"a backend's name from each of {len(asks)} requests", f"{len(bad)} others, such as {bad[:2]}")
    answered = {vip: {_flow(reply): reply.body.strip() for reply in replies if reply.vip == vip} for vip in stage.vips}
    answered |= _echoed(stage)
    tables = {name: sight.connections(stage.node(name)) for name in stage.l4}
    rows, missing = {}, []
    for vip, flows in answered.items():
        by_l4 = Counter({name: sum(flow in table for flow in flows) for name, table in tables.items()})
        by_real = Counter(stage.name_of(table[flow]) for table in tables.values() for flow in flows if flow in table)
        by_backend = Counter(flows.values())
        direct = vip not in stage.vips_of("l7")
        servers = next(one.servers for one in stage.served if one.vip == vip)
        shares = [(by_l4, stage.l4), (by_real, servers), (by_backend, servers if direct else stage.backends)]
        missing += [f"{name} for {vip}" for counts, names in shares for name in names if not counts[name]]
        words = [_shares(counts, names) for counts, names in shares]
        rows[vip] = [len(flows), words[0], "-" if direct else words[1], words[2]]
        expect(by_l4.total() == len(flows), f"each of {len(flows)} flows to {vip} on exactly one L4 node", by_l4)
    stage.report.table(["VIP", "requests", "by L4", "by L7", "by backend"], rows)
    expect(not missing, "every L4 node, L7 node and backend has a share of every VIP", f"none by {', '.join(missing)}")


def _flow(reply: Reply) -> Flow:
    return Flow(reply.source, reply.port, reply.vip)


def _echoed(stage: Stage) -> dict[str, dict[Flow, str]]:
    """One flow by UDP from every client address to every VIP that has it: VIP -> flow -> who answered."""
    flows: list[Planned] = [
        ("datagrams", source, one.vip, one.port)
        for one in stage.echoes
        for source in stage.clients
        if (":" in source) == (one.version == 6)
    ]
    stage.crowd.start("echoed", flows)
    reports = stage.finish("echoed", "by UDP")
    return {one.vip: {row.flow: row.backend for row in reports if row.vip == one.vip} for one in stage.echoes}


def _shares(counts: Counter[str], names: Sequence[str]) -> str:
    shares = [counts[name] for name in names]
    return "/".join(map(str, shares)) if len(shares) <= 5 else f"{min(shares)}..{max(shares)} of {len(shares)}"


def own_address(stage: Stage) -> None:
    """HAProxy sees the client's own address; so does a backend that answers directly."""
    asks = pairs(stage.vips, [*stage.clients[:2], *stage.clients[-2:]])
    replies = stage.crowd.ask(asks, "/whoami")
    services = stage.lab.topology.cluster.services.values()
    http = {str(vip) for s in services if s.through == "l7" and s.mode == "http" for vip in s.vips}
    seen = {}
    for reply in replies:
        expect(reply.status == 200, f"an answer from {reply.vip}", reply)
        who = json.loads(reply.body)
        if reply.vip in http:
            expect(who["forwarded"] == reply.source, f"{reply.source} seen by HAProxy", who)
        elif reply.vip in stage.vips_of("backend"):
            expect(who["peer"] == reply.source, f"{reply.source} seen by the backend", who)
        else:
            continue
        seen[reply.vip] = reply.source
    vip, source = next(iter(seen.items()))
    stage.report.found(f"{len(seen)} VIPs show the client's own address, such as {source} at {vip}")


def return_path(stage: Stage) -> None:
    """Replies do not pass the L4 nodes: no packet leaves them from a VIP, and hardly a byte of what clients get."""
    interface = stage.lab.topology.machines[stage.l4[0]].ports[0].lan
    senders = {
        name: sight.Sender(stage.node(name), interface, stage.lab.topology.vips)
        for name in (*stage.l4, *stage.l7, *stage.backends)
    }
    before = {name: sight.passed(stage.node(name), interface) for name in stage.l4}
    first = [stage.lab.topology.clients.addresses(version)[0] for version in (4, 6)]
    replies = stage.crowd.ask(pairs(stage.vips, first), f"/files/{LARGE}")
    short = [reply for reply in replies if reply.length != LARGE]
    expect(not short, f"{LARGE} bytes from every VIP", short[:1])
    got = sum(reply.length for reply in replies)
    sent = sum(sight.passed(stage.node(name), interface).since(before[name]).sent for name in stage.l4)
    packets = {role: sum(senders[name].count for name in names) for role, names in _tiers(stage).items()}
    for sender in senders.values():
        sender.close()
    stage.report.found(
        f"clients got {got / 1e6:.1f} MB from {len(replies)} VIPs; the L4 nodes sent {sent / 1e6:.2f} MB, all of it"
        " from the clients"
    )
    stage.report.found(
        "packets from a VIP: " + ", ".join(f"{count} left the {role} nodes" for role, count in packets.items())
    )
    expect(packets["L4"] == 0, "no packet from a VIP leaves an L4 node", packets)
    expect(packets["L7"] > 0 and packets["backend"] > 0, "the others answer from VIPs", packets)
    expect(sent < got / 10, "L4 nodes carry one direction only", f"{sent} of {got} bytes")


def _tiers(stage: Stage) -> dict[str, Sequence[str]]:
    return {"L4": stage.l4, "L7": stage.l7, "backend": stage.backends}
