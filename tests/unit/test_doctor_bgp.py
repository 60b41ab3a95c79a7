"""What the doctor makes of sessions, announcements and next hops, on the nodes and on a router in front of them."""

import re

import cluster
import pytest

from lbnode.config.advice import advice
from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.doctor import bgp, router
from lbnode.doctor.finding import Finding
from lbnode.doctor.router import Routed
from lbnode.roles.next_hops import next_hops, too_many

APPLY = "lbnode apply --role l4"
VIP4, VIP6, DIRECT = "198.51.100.1", "2001:db8:c633:6401::1", "2001:db8:c633:6401::4"
GATEWAYS = ("192.0.2.137", "192.0.2.138")
GATEWAYS6 = ("2001:db8:c000:280::137", "2001:db8:c000:280::138")


def short(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.name, finding.verdict) for finding in findings]


def peer(more: str = "") -> list[bgp.Speaking]:
    """What l4-1 speaks with; `more` is of the first peer."""
    return bgp.spoken_with(cluster.small("129, asn: 65000}", f"129, asn: 65000{more}}}"), "l4-1")


def many(count: int, more: str = "", node: str = "") -> Cluster:
    """A cluster with that many L4 nodes; `more` is of bgp, `node` of the first node."""
    nodes = "".join(
        f"  l4-{number}: {{role: l4, ipv4: 192.0.2.{number}{node if number == 1 else ''}}}\n"
        for number in range(1, count + 1)
    )
    return parse(
        f"bgp:\n  local_asn: 65001\n{more}"
        "  peers: {r1: {address: 192.0.2.254, asn: 65000}, r2: {address: 192.0.2.253, asn: 65000}}\n"
        f"nodes:\n{nodes}  l7-1: {{role: l7, ipv4: 192.0.3.1}}\n  s1: {{role: backend, ipv4: 192.0.3.2}}\n"
        "services: {www: {vips: [198.51.100.1], pool: web}}\npools: {web: {}}\n"
    )


def test_every_peer_is_told_of_with_its_state() -> None:
    told = {"192.0.2.129": {"state": "up", "since": 0.0}, "2001:db8:c000:280::1": {"state": "down", "since": 1e9}}
    up, down = bgp.sessions(peer(), told)
    assert (up.name, up.verdict) == ("bgp r1 192.0.2.129", "ok")
    assert (down.name, down.verdict) == ("bgp r1-6 2001:db8:c000:280::1", "fail")
    assert down.seen == "session is down since 2001-09-09 01:46:40 UTC"
    assert down.mend.startswith("on the router: this node as a neighbor, both AS numbers, port 179 open")
    silent, _ = bgp.sessions(peer(), {})
    assert (silent.verdict, silent.mend) == ("unknown", "see exabgp runs")
    stranger, _ = bgp.sessions(peer(), {"192.0.2.1": {"state": "up"}})
    assert (stranger.verdict, stranger.seen) == ("fail", "session is not known to ExaBGP")


def test_a_node_is_asked_about_its_own_peers_only() -> None:
    two = "129, asn: 65000, nodes: [l4-2]}\n    r2: {address: 192.0.2.130, asn: 65000, nodes: [l4-1]}"
    found = cluster.small("129, asn: 65000}", two)
    assert [one.name for one in bgp.spoken_with(found, "l4-1")] == ["r2", "r1-6"]


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        (
            "peer reset, message (notification received (2,2)) error(OPEN message error / Bad Peer AS)",
            "make the numbers",
        ),
        (
            "the peer said: OPEN message error, wrong AS number (NOTIFICATION 2/2)",
            "make the numbers agree: bgp.peers.r1.asn",
        ),
        ("told the peer: OPEN message error, bad BGP identifier (NOTIFICATION 2/3)", "two machines have one router id"),
        ("notification received (2,6)", "the router refuses a hold time so short: raise bgp.peers.r1.hold_time_s"),
        ("notification sent (4,0)", "nothing was heard for the hold time: ping 192.0.2.129 from 192.0.2.137"),
        ("the peer said: cease, too many prefixes (NOTIFICATION 6/1)", "raise the limit of prefixes"),
        ("the peer said: cease, administrative shutdown (NOTIFICATION 6/2)", "somebody has shut the session down"),
        (
            "the peer said: cease, connection rejected (NOTIFICATION 6/5)",
            "on the router: a neighbor 192.0.2.137 with AS 65001",
        ),
        ("closing connection", "on the router: this node as a neighbor"),
    ],
)
def test_a_reason_says_how_to_mend(reason: str, mend: str) -> None:
    found, *_ = bgp.sessions(peer(), {"192.0.2.129": {"state": "down", "since": 1e9, "reason": reason}})
    assert found.mend.startswith(mend)
    assert found.seen.endswith(f"({reason})")


def test_what_stands_between_silent_ends_is_named() -> None:
    more = ", password_file: /etc/lb/r1.md5, ttl_security: 1, passive: true"
    found, *_ = bgp.sessions(peer(more), {"192.0.2.129": {"state": "down", "since": 1e9, "reason": ""}})
    for word in ("/etc/lb/r1.md5", "ttl_security: 1", "connects to 192.0.2.137 port 179"):
        assert word in found.mend


def test_announcements_are_compared_with_the_node() -> None:
    every = [VIP4, VIP6]
    assert short(bgp.announced(every, [VIP4, VIP6], {VIP4, VIP6}, {}, APPLY)) == [("announced", "ok")]
    lost = bgp.announced(every, [VIP4, VIP6], {VIP6}, {}, APPLY)
    assert short(lost) == [("announced", "ok"), ("announced in vain", "fail")]
    assert (lost[1].seen, lost[1].mend) == (f"{VIP4}: on no device of this node, so packets to them are lost", APPLY)
    assert short(bgp.announced(every, [VIP6], {VIP4, VIP6}, {}, APPLY))[1] == ("announced besides", "warn")
    part = bgp.announced([VIP6], [VIP4, VIP6], {VIP4, VIP6}, {}, APPLY)
    assert (part[0].seen, short(part)[1], part[1].seen) == ("1 of 2 VIPs", ("not announced", "warn"), VIP4)
    (none,) = bgp.announced([], [VIP4], {VIP4}, {}, APPLY)
    assert (none.name, none.verdict) == ("announced", "warn")
    refused = bgp.announced([], [VIP4], {VIP4}, {VIP4: "see its log"}, APPLY)
    assert short(refused)[0] == (f"announced {VIP4}", "fail")


def test_sessions_of_bird_and_frr_are_asked_for_there() -> None:
    found = bgp.elsewhere()
    assert found.verdict == "unknown"
    assert "birdc show protocols" in found.mend


def test_an_agent_that_is_gone_and_a_relay_in_trouble() -> None:
    assert bgp.relay("", None, "keep") == ()
    kept, trouble = bgp.relay("cannot read wanted.json", 1e9, "keep")
    assert (kept.name, kept.verdict) == ("agent", "warn")
    assert kept.seen.startswith("no sign of life since 2001-09-09 01:46:40 UTC: what is announced stays")
    assert (trouble.verdict, trouble.seen) == ("warn", "cannot read wanted.json")
    (gone,) = bgp.relay("", 1e9, "withdraw")
    assert gone.verdict == "fail"


@pytest.mark.parametrize(
    ("count", "more", "says"),
    [
        (16, "", ""),
        (
            17,
            "",
            "17 nodes announce 198.51.100.1 to BGP peer 'r1', and many routers hold, unless told otherwise, no more",
        ),
        (
            65,
            "",
            "65 nodes announce 198.51.100.1 to BGP peer 'r1', and many routers can hold no more than 64 next hops",
        ),
        (65, "  ecmp_limit: 128\n", ""),
        (
            5,
            "  ecmp_limit: 4\n",
            "5 nodes announce 198.51.100.1 to BGP peer 'r1', which holds 4 next hops (bgp.ecmp_limit)",
        ),
    ],
)
def test_more_next_hops_than_routers_hold(count: int, more: str, says: str) -> None:
    whole = many(count, more)
    assert too_many(whole).startswith(says)
    assert bool(too_many(whole)) == bool(says)
    found = bgp.ecmp(whole)
    assert found.verdict == ("warn" if says else "ok")
    assert ("merge paths on limit N" in found.mend) == bool(says)
    assert any("the others get nothing" in line for line in advice(whole)) == bool(says)


@pytest.mark.parametrize("worse", ["med: 10", "prepend: 2"])
def test_nodes_that_are_not_preferred_are_no_next_hops(worse: str) -> None:
    found = next_hops(many(3, node=f", attributes: {{{worse}}}"))
    assert set(found.values()) == {("l4-2", "l4-3")}


def test_local_preference_counts_with_peers_of_the_own_as() -> None:
    whole = many(3, node=", attributes: {local_preference: 200}")
    assert set(next_hops(whole).values()) == {("l4-1", "l4-2", "l4-3")}
    inside = whole.model_copy(update={"bgp": whole.bgp.model_copy(update={"local_asn": 65000})})
    assert set(next_hops(inside).values()) == {("l4-1",)}


def test_graceful_restart_keeps_packets_for_the_dead() -> None:
    (found,) = bgp.lingering(peer(", graceful_restart_s: 120"))
    assert (found.name, found.verdict) == ("graceful restart r1", "warn")
    assert found.seen.startswith("120 s")
    whole = cluster.small("129, asn: 65000}", "129, asn: 65000, graceful_restart_s: 120}")
    assert any("'r1' keeps the routes of a broken session for 120 s" in line for line in advice(whole))


def test_a_router_knows_which_peer_it_is() -> None:
    whole = cluster.small()
    assert router.itself(whole, {"192.0.2.129", "2001:db8:c000:280::1"}).seen == "it is r1, r1-6 of bgp.peers"
    assert router.itself(whole, set()).verdict == "ok"


def test_a_router_forwards() -> None:
    good, bad = router.forwarding([4, 6], {4: 1, 6: 0})
    assert good.verdict == "ok"
    assert (bad.name, bad.verdict) == ("forwarding ipv6", "fail")
    assert bad.mend == "sysctl -w net.ipv6.conf.all.forwarding=1, and the same line in /etc/sysctl.d/"


@pytest.mark.parametrize(
    ("policy", "fields", "verdict"),
    [(0, 7, "warn"), (1, 7, "ok"), (2, 7, "warn"), (3, 0x37, "ok"), (3, 0x13, "ok"), (3, 0x26, "fail")],
)
def test_a_router_spreads_flows(policy: int, fields: int, verdict: str) -> None:
    (found,) = router.hashing([4], {4: policy}, {4: fields})
    assert found.verdict == verdict
    assert bool(found.mend) == (verdict != "ok")


def test_a_router_has_a_next_hop_for_every_node() -> None:
    whole = cluster.small()
    every = {
        VIP4: Routed(GATEWAYS, ("eth1",)),
        VIP6: Routed(GATEWAYS6, ("eth1",)),
        DIRECT: Routed(GATEWAYS6, ("eth1",)),
    }
    (good,) = router.routes(whole, every)
    assert good.seen == f"next hops: {VIP4} 2, {VIP6} 2, {DIRECT} 2"
    found = router.routes(whole, {VIP4: Routed(GATEWAYS[:1], ("eth1",)), VIP6: every[VIP6]})
    assert short(found) == [("routes", "ok"), (f"route {VIP4}", "warn"), (f"route {DIRECT}", "fail")]
    assert found[1].seen == "1 next hops, none by l4-2"
    assert found[2].mend.startswith("lbnode status on l4-1, l4-2: do they announce it?")


def test_a_router_behind_another_one_has_that_as_its_next_hop() -> None:
    far = Routed(("192.0.2.2", "192.0.2.6"), ("east", "west"))
    found = router.routes(cluster.small(), dict.fromkeys((VIP4, VIP6, DIRECT), far))
    assert short(found) == [("routes", "ok")]


def test_a_router_without_an_address_of_its_own_asks_for_all_that_announce() -> None:
    whole = parse(
        "bgp:\n  local_asn: 65300\n  speaker: table\n  unnumbered: {leaf: {interface: eth0}}\n"
        "nodes:\n  s1: {role: backend, ipv4: 192.0.2.11}\n  s2: {role: backend, ipv4: 192.0.2.12}\n"
        "services:\n  www: {vips: [198.51.100.1], pool: web, through: backend, announce: backend}\npools: {web: {}}\n"
    )
    assert next_hops(whole) == {}
    assert {str(vip): nodes for vip, nodes in router.announcers(whole).items()} == {VIP4: ["s1", "s2"]}
    assert short(router.routes(whole, {VIP4: Routed(("fe80::1",), ("eth0",))})) == [("routes", "ok")]
    assert short(router.routes(whole, {})) == [(f"route {VIP4}", "fail")]


def test_a_strict_filter_drops_answers_that_come_another_way() -> None:
    routed = {VIP4: Routed(GATEWAYS, ("eth1",))}
    assert short(router.reverse_path(1, {"eth1": 0}, routed, ["eth1"])) == [("rp_filter", "ok")]
    assert short(router.reverse_path(0, {"eth2": 0}, routed, ["eth2"])) == [("rp_filter", "ok")]
    (found,) = router.reverse_path(0, {"eth2": 1}, routed, ["eth2", "eth2"])
    assert (found.name, found.verdict) == ("rp_filter eth2", "fail")
    assert re.match(r"sysctl -w net\.ipv4\.conf\.eth2\.rp_filter=0", found.mend)
    assert short(router.reverse_path(2, {"eth2": 1}, routed, ["eth2"])) == [("rp_filter", "ok")], "the greater counts"
