"""What a node of each role should look like."""

from dataclasses import replace
from itertools import pairwise

import pytest
from cluster import TEXT, small
from hypothesis import given
from hypothesis.strategies import integers, lists

from lbnode.config.load import parse as parse_cluster
from lbnode.health.state import Health
from lbnode.maintenance.state import parse
from lbnode.resources import (
    SH_SLOTS,
    Address,
    Announcement,
    Destination,
    DestinationOrder,
    File,
    IpvsTimeouts,
    Link,
    LocalRoute,
    MssClamp,
    PacketMark,
    Rule,
    Running,
    ServerState,
    ServiceKey,
    SourceAllow,
    SynLimit,
    Sysctl,
    TunnelGuard,
    VirtualService,
)
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.prober import Prober
from lbnode.roles.serving import SH_ROUNDS, in_turns
from lbnode.templates import load

TEMPLATES = load()
PROBER = Prober(small(), "l4-1")
(URI4,), (URI6,) = (PROBER.health("www", "l7-1", version) for version in (4, 6))
OTHER4 = PROBER.health("www", "l7-2", 4)[0]
AGENT4, AGENT6 = (PROBER.agent("l7-1", version) for version in (4, 6))
OWN4, OWN6 = "192.0.2.137", "2001:db8:c000:280::137"
WWW4 = ServiceKey("198.51.100.1", "tcp", 80)
WWW6 = ServiceKey("2001:db8:c633:6401::1", "tcp", 80)


def inputs(name="l4-1", **options):
    return Inputs(small(), name, templates=TEMPLATES, **options)


def rows(kind, role="l4", **options):
    name = {"l4": "l4-1", "l7": "l7-1", "backend": "s1"}[role]
    return [row for row in desired(role, inputs(name, **options)).rows if isinstance(row, kind)]


def rows_of(cluster, kind, **options):
    return [row for row in desired("l4", replace(inputs(**options), cluster=cluster)).rows if isinstance(row, kind)]


def said(line):
    """What an L7 node's agent-check says, in both families."""
    return {AGENT4: Health(True, "", parse(line)), AGENT6: Health(True, "", parse(line))}


def weights(service=WWW4, **options):
    return [row.weight for row in rows(Destination, **options) if row.service == service]


def test_an_l4_node_has_every_vip_port_and_real_server():
    assert {str(row.service) for row in rows(VirtualService) if not row.service.carries_probes} == {
        "198.51.100.1:80/tcp",
        "198.51.100.1:443/tcp",
        "[2001:db8:c633:6401::1]:80/tcp",
        "[2001:db8:c633:6401::1]:443/tcp",
        "[2001:db8:c633:6401::4]:80/tcp",
    }
    assert [row.address for row in rows(Destination) if row.service == WWW4] == ["192.0.2.193", "192.0.2.194"]
    direct = ServiceKey("2001:db8:c633:6401::4", "tcp", 80)
    assert DestinationOrder(direct, ("2001:db8:c000:280::e1", "2001:db8:c000:280::e2")) in rows(DestinationOrder)
    assert Address("198.51.100.1", "lb-vip") in rows(Address)
    assert Sysctl("net.ipv4.vs.sloppy_tcp", "1") in rows(Sysctl)


def test_each_vip_is_announced_to_the_peers_of_its_family_with_the_node_as_next_hop():
    assert set(rows(Announcement)) == {
        Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137"),
        Announcement("2001:db8:c633:6401::1/128", "2001:db8:c000:280::1", "2001:db8:c000:280::137"),
        Announcement("2001:db8:c633:6401::4/128", "2001:db8:c000:280::1", "2001:db8:c000:280::137"),
    }


def test_one_probe_serves_many_vips_and_goes_the_way_of_their_packets():
    found = Prober(small(), "l4-1").probes()
    assert len(found) == len(set(found))
    assert URI4 in found
    assert (URI4.address, URI4.port, URI4.path, URI4.source) == ("198.51.100.1", 5580, "/healthcheck", OWN4)
    key = ServiceKey.of_mark(URI4.mark, 4)
    assert VirtualService(key, "rr", ()) in rows(VirtualService)
    assert [row.address for row in rows(Destination) if row.service == key] == ["192.0.2.193"]
    assert URI4.mark == URI6.mark != OTHER4.mark
    assert [probe.id for probe in found if probe.kind == "agent"][:2] == [
        "agent://192.0.2.193:5555",
        "agent://192.0.2.194:5555",
    ]


def test_probes_can_go_to_the_servers_own_addresses():
    cluster = small("pools:", "probe: {via: direct}\npools:")
    assert {probe.id for probe in Prober(cluster, "l4-1").probes() if "c000" not in probe.address} == {
        "agent://192.0.2.193:5555",
        "agent://192.0.2.194:5555",
        "http://192.0.2.193:5580/healthcheck",
        "http://192.0.2.194:5580/healthcheck",
    }
    assert not any(row.service.carries_probes for row in rows_of(cluster, VirtualService))


def test_a_mark_stays_a_servers_own_when_others_come_and_go():
    more = small("  l7-1: {", "  l7-0: {role: l7, ipv4: 192.0.2.192, ipv6: '2001:db8:c000:280::192'}\n  l7-1: {")
    assert Prober(more, "l4-1").health("www", "l7-1", 4) == (URI4,)
    without = Prober(small("  l7-1: {", "  l7-9: {"), "l4-1")
    assert without.health("www", "l7-2", 4) == (OTHER4,)


def test_a_service_can_ask_for_more_than_the_health_uri():
    cluster = small("pool: web}\n  direct", "pool: web, probe: {type: https, path: /deep, body: fine}}\n  direct")
    uri, own = Prober(cluster, "l4-1").health("www", "l7-1", 4)
    assert uri == URI4
    assert (own.kind, own.address, own.port, own.path, own.body) == ("https", "198.51.100.1", 80, "/deep", "fine")
    down = desired("l4", replace(inputs(health={own: Health(False, "HTTP 500")}), cluster=cluster))
    found = {row.address: row.weight for row in down.rows if isinstance(row, Destination) and row.service == WWW4}
    assert found == {"192.0.2.193": 0, "192.0.2.194": 100}


def test_a_server_that_is_down_keeps_its_row_at_weight_0_and_its_place_in_the_table():
    down = {URI4: Health(False, "HTTP 503")}
    row = next(row for row in rows(Destination, health=down) if (row.service, row.address) == (WWW4, "192.0.2.193"))
    assert (row.weight, row.table_weight) == (0, 100)
    assert weights(health=down) == [0, 100]
    assert weights(WWW6, health=down) == [100, 100]
    reason = desired("l4", inputs(health=down)).reasons[row.key]
    assert reason == "down: HTTP 503"


@pytest.mark.parametrize(
    ("line", "weight"),
    [("ready", 100), ("drain", 0), ("down", 0), ("maint", 0), ("70%", 70), ("99%", 100), ("0%", 0), ("1%", 10)],
)
def test_what_an_l7_says_of_itself_decides_its_weight(line, weight):
    health = {URI4: Health(True, "HTTP 200"), URI6: Health(True, "HTTP 200"), **said(line)}
    assert weights(health=health) == [weight, 100]
    assert weights(WWW6, health=health) == [weight, 100]


def test_what_is_not_known_yet_empties_no_table():
    assert weights(health={URI4: Health()}) == [100, 100]


SILENT = Health(False, "no answer within 1 s", silent=True)
GONE4 = {URI4: SILENT, AGENT4: SILENT}
FAILED4, FAILED6 = LocalRoute("192.0.2.193", OWN4), LocalRoute("2001:db8:c000:280::193", OWN6)


@pytest.mark.parametrize("line", ["down", "maint", "stopped", "fail # disks"])
def test_a_server_that_says_it_is_out_has_its_flows_ended_in_both_families(line):
    health = {URI4: Health(True, "HTTP 200"), **said(line)}
    assert set(rows(LocalRoute, health=health)) == {FAILED4, FAILED6}
    assert weights(health=health) == weights(WWW6, health=health) == [0, 100]


def test_a_server_that_is_silent_has_its_flows_ended_in_that_family_alone():
    found = desired("l4", inputs(health=GONE4))
    assert [row for row in found.rows if isinstance(row, LocalRoute)] == [FAILED4]
    assert found.reasons[FAILED4.key] == "down: no answer within 1 s"
    verdict = next(verdict for verdict in found.verdicts if verdict.name == "l7-1 (192.0.2.193)")
    assert verdict.state == "weight 0, failed: its flows are ended"


@pytest.mark.parametrize(
    ("line", "health"),
    [
        ("drain", Health(True, "HTTP 200")),
        ("drain", Health(False, "HTTP 503")),
        ("ready", Health(False, "HTTP 503")),
        ("ready", Health(False, "ECONNREFUSED")),
        ("0%", Health(False, "HTTP 503")),
        ("ready", Health(None, "cannot probe: EMFILE")),
    ],
)
def test_the_flows_of_a_server_that_answers_are_its_own_business(line, health):
    """A drained L7 node's health URI is 503, and stays so for a moment after it is ready again."""
    assert rows(LocalRoute, health={URI4: health, **said(line)}) == []


def test_a_server_whose_agent_check_answers_is_not_gone():
    """Its tunnel may be: then it takes no new flows, and somebody has to look."""
    assert rows(LocalRoute, health={URI4: SILENT, **said("ready")}) == []
    assert weights(health={URI4: SILENT, **said("ready")}) == [0, 100]
    assert rows(LocalRoute, health={URI4: Health(False, "HTTP 503"), AGENT4: SILENT}) == []


def test_while_its_flows_are_ended_the_agent_check_alone_tells_that_a_server_is_back():
    """Then its address is local here, and probes through the tunnel are refused by this node itself."""
    refused = Health(False, "ECONNREFUSED")
    ended = frozenset({"192.0.2.193"})
    assert rows(LocalRoute, health={URI4: refused, AGENT4: SILENT}, ended=ended) == [FAILED4]
    assert rows(LocalRoute, health={URI4: refused}, ended=ended) == [FAILED4]
    back = {URI4: refused, **said("ready")}
    assert rows(LocalRoute, health=back, ended=ended) == []
    assert weights(health=back, ended=ended) == [0, 100]


def test_a_draining_server_that_is_gone_has_failed():
    drained = replace(SILENT, admin=parse("drain"))
    found = desired("l4", inputs(health={URI4: SILENT, AGENT4: drained}))
    assert FAILED4 in found.rows
    assert found.reasons[FAILED4.key] == "drain on the node itself, and then no answer within 1 s"


def test_nobody_is_failed_when_all_are():
    both = dict.fromkeys(PROBER.probes(), SILENT)
    assert rows(LocalRoute, health=both) == []
    assert weights(health=both) == [0, 0]
    del both[OTHER4]
    assert rows(LocalRoute, health=both) == [FAILED4]


def test_nobody_is_failed_while_the_first_of_all_has_just_come_back():
    """This node was cut off: what it did not hear meanwhile says nothing of the others."""
    cut = {**GONE4, OTHER4: Health(True, "HTTP 200", back_for_s=0.5)}
    assert rows(LocalRoute, health=cut) == []
    assert rows(LocalRoute, health={**cut, OTHER4: Health(True, "HTTP 200", back_for_s=3.5)}) == [FAILED4]
    assert FAILED4 in rows(LocalRoute, health={**cut, **said("maint")})
    assert rows(LocalRoute, health=cut, ended=frozenset({"192.0.2.193"})) == [FAILED4]


def test_who_has_failed_stays_so_when_an_agent_has_just_started_and_knows_nothing():
    ended = frozenset({"192.0.2.193"})
    for health in ({}, {URI4: Health(None, "cannot probe: this node is too busy")}):
        assert rows(LocalRoute, health=health, ended=ended) == [FAILED4]
        assert weights(health=health, ended=ended) == [0, 100]


def test_an_address_that_another_service_still_uses_is_left_alone():
    extra = """
  other: {vips: ["2001:db8:c633:6401::5"], pool: two, through: backend}
"""
    pool = "\n  two: {port: 81, check: {type: tcp}}\nservices:"
    cluster = parse_cluster(TEXT.replace("\nservices:", pool) + extra)
    prober = Prober(cluster, "l4-1")
    gone = dict.fromkeys((*prober.health("direct", "s1", 6), prober.agent("s1", 6)), SILENT)
    other = dict.fromkeys(prober.health("other", "s1", 6), SILENT)

    def ended(health):
        return [row.address for row in rows_of(cluster, LocalRoute, health=health)]

    assert ended(gone) == []
    assert ended({**gone, **other}) == ["2001:db8:c000:280::e1"]


def test_what_ends_flows_is_prepared_while_nobody_has_failed():
    assert rows(Rule) == [Rule(version, 200, 77, "lo", 0, 0xFFFFFFFF) for version in (4, 6)]
    assert Sysctl("net.ipv4.conf.all.accept_local", "1") in rows(Sysctl)
    assert rows(Rule, "l7") == rows(Rule, "backend") == []


def test_the_time_outs_are_the_files():
    assert rows(IpvsTimeouts) == [IpvsTimeouts(3900, 120, 300)]
    cluster = small("pools:", "ipvs: {tcp_timeout_s: 900}\npools:")
    found = desired("l4", replace(inputs(), cluster=cluster)).rows
    assert IpvsTimeouts(900, 120, 300) in found


@pytest.mark.parametrize("line", ["drain", "maint", "down"])
def test_maintenance_of_an_l4_withdraws_its_vips_and_keeps_ipvs(line):
    admin = parse(f"{line} # disks")
    assert rows(Announcement, admin=admin) == []
    assert rows(VirtualService, admin=admin) == rows(VirtualService)
    assert rows(Address, admin=admin) == rows(Address)
    verdict = desired("l4", inputs(admin=admin)).verdicts[-1]
    assert (verdict.state, verdict.good) == ("withdrawn", False)
    assert "disks" in verdict.reason


def test_a_vip_without_its_quorum_is_withdrawn_and_says_why():
    cluster = small("pool: web}", "pool: web, quorum: 2}")
    found = desired("l4", replace(inputs(health={URI4: Health(False, "refused")}), cluster=cluster))
    assert [row.prefix for row in found.rows if isinstance(row, Announcement) and ":" not in row.prefix] == []
    verdict = next(verdict for verdict in found.verdicts if verdict.name == "198.51.100.1")
    assert verdict.reason.startswith("www has 1 of 2 servers, needs 2")


def announced(cluster, up, **options):
    """Whether the VIP of `www` is announced over IPv4 with so many of its two servers up."""
    probes = [URI4, OTHER4][up:]
    health = dict.fromkeys(probes, Health(False, "refused"))
    found = rows_of(cluster, Announcement, health=health, **options)
    return any(row.prefix == "198.51.100.1/32" for row in found)


def test_what_was_withdrawn_comes_back_at_the_higher_mark():
    cluster = small("pool: web}\n  direct", "pool: web, quorum: 1, quorum_high: 2}\n  direct")
    now = frozenset({"198.51.100.1"})
    assert [announced(cluster, up, announced=now) for up in (0, 1, 2)] == [False, True, True]
    assert [announced(cluster, up) for up in (0, 1, 2)] == [False, False, True]


def test_a_service_that_keeps_its_announcement_uses_all_servers_below_its_quorum():
    cluster = small("pool: web}\n  direct", "pool: web, quorum: 2, below_quorum: keep}\n  direct")
    assert announced(cluster, 0)
    down = dict.fromkeys((URI4, OTHER4), Health(False, "refused"))

    def found(**health):
        return [row.weight for row in rows_of(cluster, Destination, **health) if row.service == WWW4]

    assert found(health={URI4: Health(False, "refused")}) == found(health=down) == [100, 100]
    assert found(health={**down, **said("drain")}) == [0, 100]
    verdict = next(v for v in desired("l4", replace(inputs(health=down), cluster=cluster)).verdicts if v.kind == "vip")
    assert "0 of 2 servers up is under the quorum of 2: all are used" in verdict.reason


def test_an_l4_node_that_was_cut_off_announces_when_all_had_time_to_come_back():
    """rise 2, every 1 s, 10 % jitter, 1 s to wait for an answer: 3.2 s after the first of them."""

    def found(*backs, now=frozenset()):
        health = {}
        for server, back in zip(("l7-1", "l7-2"), backs, strict=True):
            up = Health(True, "fine", back_for_s=back) if back != "down" else Health(False, "refused")
            health |= dict.fromkeys(PROBER.health("www", server, 4), up)
        return any(row.prefix == "198.51.100.1/32" for row in rows(Announcement, health=health, announced=now))

    assert not found(0.5, "down")
    assert not found(3.1, 0.1)
    assert found(3.3, 0.1)
    assert found(3.3, "down")
    assert found(0.5, None), "one has never been away"
    assert found(0.5, "down", now=frozenset({"198.51.100.1"})), "it has not been withdrawn"


def test_under_the_panic_share_checks_are_not_believed():
    cluster = small("pool: web}\n  direct", "pool: web, panic_percent: 60}\n  direct")
    down = {URI4: Health(False, "refused")}
    assert [row.weight for row in rows_of(cluster, Destination, health=down) if row.service == WWW4] == [100, 100]
    gone = {**GONE4, OTHER4: Health(False, "refused")}
    assert rows_of(cluster, LocalRoute, health=gone) == []


def test_a_slow_start_takes_steps_and_is_bounded():
    cluster = small("pool: web}\n  direct", "pool: web, slow_start_s: 100, ipvs: {scheduler: wrr}}\n  direct")

    def found(**back):
        health = {
            URI4: Health(True, "fine", back_for_s=back.get("one")),
            OTHER4: Health(True, "fine", back_for_s=back.get("two")),
        }
        return [row.weight for row in rows_of(cluster, Destination, health=health) if row.service == WWW4]

    assert found(one=0.0) == [10, 100]
    assert found(one=45.0) == [50, 100]
    assert found(one=99.0) == found(one=101.0) == found() == [100, 100]
    assert found(one=0.0, two=0.0) == [100, 100], "nobody is left who could take the rest"


def test_all_that_ipvs_can_do_for_a_service():
    ipvs = "{scheduler: sh, persistence_s: 300, persistence_ipv4_prefix: 24, tunnel: gue, max_connections: 1000}"
    cluster = small("pool: web}\n  direct", f"pool: web, ipvs: {ipvs}}}\n  direct")
    service = next(row for row in rows_of(cluster, VirtualService) if row.service == WWW4)
    assert (service.scheduler, service.timeout_s, service.prefix) == ("sh", 300, 24)
    assert service.flags == ("persistent", "sh-fallback", "sh-port")
    row = next(row for row in rows_of(cluster, Destination) if row.service == WWW4)
    assert (row.tunnel, row.tunnel_port, row.upper, row.lower) == ("gue", 6080, 1000, 750)


def test_servers_of_sh_have_weights_that_its_table_has_room_for():
    """With weights of 100, two of them would have all 256 slots but 56, and a fourth none."""

    def weights(sizes, **options):
        cluster = small("pool: web}\n  direct", "pool: web, ipvs: {scheduler: sh}}\n  direct")
        nodes = zip((name for name in cluster.nodes if name.startswith("l7")), sizes, strict=True)
        sized = {name: cluster.nodes[name].model_copy(update={"weight": size}) for name, size in nodes}
        cluster = cluster.model_copy(update={"nodes": {**cluster.nodes, **sized}})
        found = [row for row in rows_of(cluster, Destination, **options) if row.service == WWW4]
        return [(row.weight, row.table_weight) for row in found]

    assert weights((100, 100)) == [(1, 1), (1, 1)]
    assert weights((100, 50)) == [(2, 2), (1, 1)]
    assert weights((100, 50), health={URI4: Health(False, "refused")}) == [(0, 2), (1, 1)]
    assert weights((1000, 1)) == [(64, 64), (1, 1)]


@given(lists(integers(1, 1000), min_size=1, max_size=SH_SLOTS))
def test_every_server_of_sh_has_a_slot(sizes):
    found = in_turns(dict(enumerate(sizes)))
    assert min(found.values()) >= 1
    assert sum(found.values()) <= SH_SLOTS / SH_ROUNDS + len(sizes)
    assert all(found[one] <= found[other] for one, other in pairwise(sorted(found, key=lambda key: sizes[key])))


def test_a_service_by_firewall_mark_is_one_table_for_all_vips_and_ports():
    cluster = small("pool: web}\n  direct", "pool: web, ipvs: {mark: 7}}\n  direct")
    keys = {row.service for row in rows_of(cluster, VirtualService) if not row.service.carries_probes}
    assert keys == {ServiceKey.of_mark(7, 4), ServiceKey.of_mark(7, 6), ServiceKey("2001:db8:c633:6401::4", "tcp", 80)}
    marks = rows_of(cluster, PacketMark)
    assert {(str(row.service), row.mark) for row in marks} == {
        ("198.51.100.1:80/tcp", 7),
        ("198.51.100.1:443/tcp", 7),
        ("[2001:db8:c633:6401::1]:80/tcp", 7),
        ("[2001:db8:c633:6401::1]:443/tcp", 7),
    }


def test_masqueraded_servers_have_the_pools_port_and_no_tunnel():
    cluster = small("through: backend}", "through: backend, ipvs: {forwarding: masquerade}}")
    pool = parse_cluster(
        TEXT.replace("{port: 80,", "{port: 8080,").replace(
            "through: backend}", "through: backend, ipvs: {forwarding: masquerade}}"
        )
    )
    assert {row.name for row in rows_of(cluster, Destination) if row.forwarding == "masquerade"} == {
        "2001:db8:c000:280::e1",
        "2001:db8:c000:280::e2",
    }
    assert {row.name for row in rows_of(pool, Destination) if row.forwarding == "masquerade"} == {
        "[2001:db8:c000:280::e1]:8080",
        "[2001:db8:c000:280::e2]:8080",
    }
    assert [row for row in desired("backend", replace(inputs("s1"), cluster=pool)).rows if isinstance(row, Link)] == []


def test_who_may_reach_a_service():
    access = "{allow: [203.0.113.0/24, 192.0.2.0/25, '2001:db8:cb00::/48'], syn_per_s: 500}"
    cluster = small("pool: web}\n  direct", f"pool: web, access: {access}}}\n  direct")
    assert SourceAllow(WWW4, ("192.0.2.0/25", "203.0.113.0/24")) in rows_of(cluster, SourceAllow)
    assert SourceAllow(WWW6, ("2001:db8:cb00::/48",)) in rows_of(cluster, SourceAllow)
    assert SynLimit(WWW4, 500, 100) in rows_of(cluster, SynLimit)
    assert rows(SourceAllow) == rows(SynLimit) == []


def test_the_serial_decides_the_order_and_the_file_does_not():
    text = TEXT.replace("192.0.2.193,", "192.0.2.193, serial: 20,").replace("192.0.2.194,", "192.0.2.194, serial: 10,")
    one = parse_cluster(text)
    order = next(row for row in rows_of(one, DestinationOrder) if row.service == WWW4)
    assert order.names == ("192.0.2.194", "192.0.2.193")


def test_an_l7_node_decapsulates_and_runs_haproxy():
    found = desired("l7", inputs("l7-1")).rows
    assert Link("lb-ipip", "ipip", "192.0.2.193") in found
    assert Link("lb-ip6", "ip6tnl", "2001:db8:c000:280::193") in found
    assert Sysctl("net.ipv4.conf.lb-ipip.rp_filter", "0") in found
    assert Sysctl("net.ipv4.conf.all.rp_filter", "0") in found
    assert {row.address for row in found if isinstance(row, Address)} == {"198.51.100.1", "2001:db8:c633:6401::1"}
    assert [row.checker for row in found if isinstance(row, File)] == ["", "", "haproxy"]
    assert [row.program for row in found if isinstance(row, Running)] == ["haproxy"]


@pytest.mark.parametrize(
    ("line", "up"), [("ready", True), ("75%", True), ("0%", False), ("drain", False), ("down", False)]
)
def test_the_enabler_follows_what_people_set(line, up):
    assert rows(ServerState, "l7", admin=parse(line)) == [ServerState("enabler", "enabler", up)]


def test_a_backend_changes_only_what_direct_return_needs():
    found = desired("backend", inputs("s1")).rows
    assert [row for row in found if isinstance(row, Link)] == [
        Link("lb-vip", "dummy"),
        Link("lb-ip6", "ip6tnl", "2001:db8:c000:280::e1"),
    ]
    assert [row for row in found if isinstance(row, Address)] == [Address("2001:db8:c633:6401::4", "lb-vip")]
    without = replace(inputs("s1"), cluster=small("pool: web, through: backend", "pool: web"))
    assert desired("backend", without).rows == ()


def test_a_backend_that_can_tells_clients_what_fits_into_the_tunnel():
    found = desired("backend", inputs("s1", filters=True)).rows
    assert [row for row in found if isinstance(row, MssClamp)] == [MssClamp("2001:db8:c633:6401::4", 1400)]
    assert rows(MssClamp, "backend") == rows(MssClamp, "l7", filters=True) == []


def test_maintenance_changes_no_row_of_the_data_path_on_an_l7():
    ready = set(desired("l7", inputs("l7-1")).rows)
    drained = set(desired("l7", inputs("l7-1", admin=parse("drain"))).rows)
    assert {type(row) for row in ready ^ drained} == {ServerState}


def test_real_servers_take_tunnelled_packets_from_those_that_send_flows_on():
    found = desired("l7", replace(inputs("l7-1"), filters=True))
    assert [row.sources for row in found.rows if isinstance(row, TunnelGuard)] == [
        ("192.0.2.137", "192.0.2.138", "192.0.2.194"),
        ("2001:db8:c000:280::137", "2001:db8:c000:280::138", "2001:db8:c000:280::194"),
    ]


def test_real_servers_take_tunnelled_packets_from_l4_nodes_alone():
    guards = (
        TunnelGuard(4, 4, 0, ("192.0.2.137", "192.0.2.138")),
        TunnelGuard(6, 41, 0, ("2001:db8:c000:280::137", "2001:db8:c000:280::138")),
    )
    alone = small("pools:", "second_chance: {enabled: false}\npools:")
    with_filters = replace(inputs("l7-1"), filters=True, cluster=alone)
    found = desired("l7", with_filters)
    assert tuple(row for row in found.rows if isinstance(row, TunnelGuard)) == guards
    assert "from anybody" not in found.verdicts[0].reason
    found = desired("l7", inputs("l7-1"))
    assert not [row for row in found.rows if isinstance(row, TunnelGuard)]
    assert found.verdicts[0].reason.endswith("; takes tunnelled packets from anybody (no nf_tables)")
    backend = desired("backend", replace(inputs("s1"), filters=True, cluster=alone))
    assert tuple(row for row in backend.rows if isinstance(row, TunnelGuard)) == guards[1:]
