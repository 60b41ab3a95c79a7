"""What a node that announces by BIRD or FRR should have: routes, not announcements; and what its speaker tells."""

import pytest
from test_announcing import TEXT

from lbnode.config.load import parse
from lbnode.health.state import Health
from lbnode.maintenance.state import parse as admin
from lbnode.plan import diff
from lbnode.reconcile import apply
from lbnode.resources import (
    FIRST_CHOICE,
    SECOND_CHOICE,
    AnnouncedRoute,
    Announcement,
    File,
    Link,
    Running,
    ServiceKey,
    VirtualService,
)
from lbnode.roles import desired, speakers
from lbnode.roles.inputs import Inputs
from lbnode.roles.own_check import own_checks
from lbnode.templates import load

BY_TABLE = TEXT.replace("  local_asn: 65001\n", "  local_asn: 65001\n  speaker: table\n  table: 99\n")
CLUSTER = parse(BY_TABLE)
UP = {check.probe: Health(True, "HTTP 200") for check in own_checks(CLUSTER, "s1")}
ROUTE4, ROUTE6 = AnnouncedRoute("198.51.100.1/32", 99), AnnouncedRoute("2001:db8:5::1/128", 99)


def wanted(name="s1", cluster=CLUSTER, **options):
    return desired("backend", Inputs(cluster, name, templates=load(), **options))


def routes(**options):
    return [row for row in wanted(**options).rows if isinstance(row, AnnouncedRoute)]


def test_a_good_vip_has_one_route_however_many_peers_are_told():
    assert routes(health=UP) == [ROUTE4, ROUTE6]
    assert not [row for row in wanted(health=UP).rows if isinstance(row, Announcement | File | Running)]
    assert wanted(health=UP).reasons[ROUTE4.key] == "www is up: HTTP 200"


def test_the_vrf_is_there_before_any_route():
    assert Link("lb-announce", "vrf", table=99) in wanted().rows
    assert routes() == []


def test_what_is_not_good_or_not_ready_has_none():
    (first, *_) = UP
    assert routes(health=UP | {first: Health(False, "HTTP 503")}) == [ROUTE6]
    assert routes(health=UP, admin=admin("maint")) == []
    assert routes(announced=frozenset(["198.51.100.1"])) == [ROUTE4], "not known yet: as it was"


def test_a_node_on_its_way_out_and_a_damped_vip_are_second_choices():
    second = [AnnouncedRoute(row.prefix, 99, SECOND_CHOICE) for row in (ROUTE4, ROUTE6)]
    both = frozenset(row.prefix.partition("/")[0] for row in second)
    assert routes(health=UP, admin=admin("drain"), announced=both, leaving_s=1.0) == second
    assert routes(health=UP, admin=admin("drain"), announced=both, leaving_s=99.0) == []
    assert routes(health=UP, damped={"198.51.100.1": 2e9}) == [second[0], ROUTE6]


def test_a_family_that_nobody_would_be_told_of_has_none():
    """Such a file is refused before; here the role is asked all the same."""
    whole = parse(BY_TABLE)
    peers = {name: peer for name, peer in whole.bgp.peers.items() if name != "r6"}
    lonely = whole.model_copy(update={"bgp": whole.bgp.model_copy(update={"peers": peers})})
    assert routes(health=UP, cluster=lonely) == [ROUTE4]


def test_a_route_waits_for_all_that_is_under_it_and_leaves_first():
    link = Link("lb-announce", "vrf", table=99)
    changes = diff([], [ROUTE4, link]).changes
    assert [change.row for change in changes] == [link, ROUTE4]
    assert [change.row for change in diff([ROUTE4, link], []).changes] == [ROUTE4, link]

    class Refuses:
        kinds = (Link,)

        def apply(self, changes):
            from lbnode.drivers import Result

            return [Result(change, "no module") for change in changes]

    class Takes(Refuses):
        kinds = (AnnouncedRoute,)

    results = apply(diff([], [ROUTE4, link]), [Refuses(), Takes()])
    assert [result.error for result in results] == ["no module", "held back: link lb-announce failed"]


def test_a_table_with_routes_is_not_quiet():
    service = VirtualService(ServiceKey("198.51.100.1", "tcp", 80))
    (change,) = diff([ROUTE4], [ROUTE4, service]).changes
    assert not change.quiet
    assert diff([], [service]).changes[0].quiet


def test_a_plan_says_which_choice_a_route_is():
    second = AnnouncedRoute(ROUTE4.prefix, 99, SECOND_CHOICE)
    assert str(diff([ROUTE4], [second])) == (
        "~ announced-route 198.51.100.1/32 in table 99 as first choice -> second choice"
    )


def test_the_speaker_tells_peers_as_the_cluster_file_says_and_a_second_choice_besides():
    found = {session.name: session for session in speakers.sessions(CLUSTER, "s1")}
    first, second = found["r1"].choices[4]
    assert (first.metric, second.metric) == (FIRST_CHOICE, SECOND_CHOICE)
    assert (first.attributes.med, first.attributes.prepend, first.next_hop) == (6, 2, "192.0.2.200")
    assert first.attributes.communities == ("65001:1", "65535:65281", "65001:2")
    assert second.attributes.communities == (*first.attributes.communities, "65535:0")
    assert found["r2"].choices[4][0].attributes.local_preference == 50
    assert found["r6"].choices[6][0].next_hop == "", "its own address in the session"
    assert "r2" not in {session.name for session in speakers.sessions(CLUSTER, "s2")}


@pytest.mark.parametrize(
    ("step", "med", "local_preference"),
    [("med", 1000, None), ("none", 1000, None), ("local-preference", 1000, None)],
)
def test_the_step_decides_what_a_second_choice_is(step, med, local_preference):
    rule = f"  leaving: {{step: {step}, med: 1000, local_preference: 7}}\n"
    cluster = parse(BY_TABLE.replace("  table: 99\n", "  table: 99\n" + rule))
    _, second = next(session for session in speakers.sessions(cluster, "s2") if session.name == "r1").choices[4]
    assert (second.attributes.med, second.attributes.local_preference) == (med, local_preference)
    assert "65535:0" not in second.attributes.communities


def test_a_second_choice_is_the_same_whoever_announces_it():
    """By ExaBGP or by another speaker: to peers of the own AS, and to others."""
    for step in ("graceful-shutdown", "med", "local-preference", "none"):
        rule = f"  leaving: {{step: {step}, med: 1000, local_preference: 7}}\n"
        cluster = parse(TEXT.replace("  local_asn: 65001\n", "  local_asn: 65001\n" + rule))
        found = wanted(cluster=cluster, health=UP, damped={"198.51.100.1": 2e9})
        rows = {row.peer: row for row in found.rows if isinstance(row, Announcement) and ":" not in row.prefix}
        for session in speakers.sessions(cluster, "s1"):
            for choice in session.choices.get(4, ()):
                row, attributes = rows[session.address], choice.attributes
                if choice.metric == SECOND_CHOICE:
                    inside = attributes.local_preference if session.asn == 65001 else None
                    assert (row.med, row.local_preference, row.communities) == (
                        attributes.med,
                        inside,
                        attributes.communities,
                    )


def test_vips_that_are_told_alike_stand_together():
    text = BY_TABLE.replace("[198.51.100.1,", "[198.51.100.1, 198.51.100.2,")
    more = "  other: {vips: [198.51.100.3], pool: web, through: backend, announce: backend}\n"
    (_, *choices) = speakers.sessions(parse(text + more), "s1")[0].choices[4]
    first = speakers.sessions(parse(text + more), "s1")[0].choices[4][0]
    assert first.prefixes == ("198.51.100.1/32", "198.51.100.2/32")
    assert [choice.prefixes for choice in choices[:1]] == [("198.51.100.3/32",)]


def test_the_guard_is_what_is_announceable_or_else_the_vips():
    vips = [vip for service in CLUSTER.services.values() for vip in service.vips]
    assert speakers.guards(CLUSTER.bgp, vips) == {4: ("198.51.100.1/32",), 6: ("2001:db8:5::1/128",)}
    wide = parse(BY_TABLE.replace("  table: 99\n", "  table: 99\n  announceable: [198.51.100.0/24, 2001:db8::/32]\n"))
    assert speakers.guards(wide.bgp, vips) == {4: ("198.51.100.0/24",), 6: ("2001:db8::/32",)}


def test_there_is_nothing_to_print_without_a_table_or_a_vip():
    assert speakers.config("frr", load(), parse(TEXT), "s1") == ""
    lonely = parse(BY_TABLE.replace("web: {", "web: {nodes: [s1], "))
    assert speakers.config("bird", load(), lonely, "s2") == ""


@pytest.mark.parametrize("speaker", ["bird", "frr"])
def test_a_node_that_speaks_with_nobody_has_a_table_and_no_session(speaker):
    of_s1 = BY_TABLE.replace("asn: 65000", "nodes: [s1], asn: 65000").replace(
        "pools:\n  web: {", "pools:\n  web: {nodes: [s1], "
    )
    cluster = parse(of_s1)
    text = speakers.config(speaker, load(), cluster, "s2")
    assert "neighbor" not in text
