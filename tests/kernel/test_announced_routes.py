"""Announced routes in a table of our own, on a real kernel: what is made is what is seen, and the rest stays."""

import os
import socket
import subprocess
from collections.abc import Sequence

import pytest

from lbnode.agent.haste import Haste
from lbnode.agent.journal import Journal
from lbnode.bgp.table import TableDriver, announced
from lbnode.maintenance.state import parse
from lbnode.net.links import LinkDriver
from lbnode.plan import Plan, diff
from lbnode.resources import ANNOUNCE_LINK, SECOND_CHOICE, AnnouncedRoute, Link, Row
from lbnode.roles.inputs import Desired

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

ROUTE4, ROUTE6 = AnnouncedRoute("198.51.100.1/32", 78), AnnouncedRoute("2001:db8:1::1/128", 78)
WANTED: tuple[Row, ...] = (ROUTE4, ROUTE6)
LEFT: tuple[Row, ...] = tuple(AnnouncedRoute(row.prefix, 78, SECOND_CHOICE) for row in (ROUTE4, ROUTE6))
SHOWN4 = "blackhole 198.51.100.1 proto 76 metric 100"
SHOWN6 = "blackhole 2001:db8:1::1 dev lo proto 76 metric 100"


def ip(*argv: str) -> str:
    return subprocess.run(("ip", *argv), check=True, capture_output=True, text=True).stdout


def table(number: int = 78) -> list[str]:
    """Its routes of both families, as ip(8) shows them."""
    lines = []
    for family in ("-4", "-6"):
        done = subprocess.run(
            ("ip", family, "route", "show", "table", str(number)), capture_output=True, text=True, check=False
        )
        lines += [line.replace("pref medium", "").strip() for line in done.stdout.splitlines()]
    return lines


def plan(wanted: Sequence[Row]) -> Plan:
    observed = TableDriver().observe(wanted)
    return diff(observed.rows, wanted, foreign=observed.foreign)


def run(wanted: Sequence[Row]) -> list[str]:
    """One pass; the errors. Nothing may be left to do when there are none."""
    errors = [result.error for result in TableDriver().apply(plan(wanted).changes)]
    assert any(errors) or not plan(wanted), plan(wanted)
    return [error for error in errors if error]


def test_what_is_made_is_what_is_seen():
    assert str(plan(WANTED)).splitlines() == [
        "+ announced-route 198.51.100.1/32 in table 78 as first choice",
        "+ announced-route 2001:db8:1::1/128 in table 78 as first choice",
    ]
    assert run(WANTED) == []
    assert table() == [SHOWN4, SHOWN6]
    assert announced() == {"198.51.100.1", "2001:db8:1::1"}
    assert run(()) == []
    assert (table(), announced()) == ([], frozenset())


def test_what_a_speaker_sees_when_a_route_changes_has_no_gap():
    run(WANTED)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as watch:
        watch.bind((0, 0x40 | 0x400))  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
        assert str(plan(LEFT)).splitlines()[0] == (
            "~ announced-route 198.51.100.1/32 in table 78 as first choice -> second choice"
        )
        assert run(LEFT) == []
        watch.settimeout(5)
        kinds = [int.from_bytes(watch.recv(4096)[4:6], "little") for _ in range(4)]
    assert kinds == [24, 25, 24, 25], "for each family first the new route, then the end of the old one"
    assert table() == [SHOWN4.replace("100", "200").replace("198.51.200", "198.51.100"), SHOWN6.replace("100", "200")]


def test_what_people_order_is_in_the_table_before_the_pass():
    """The routes alone; and none that was not there, when all was not well before."""
    journal, drivers = Journal(), (LinkDriver(), TableDriver())
    haste = Haste(drivers, journal)
    link = Link(ANNOUNCE_LINK, "vrf", table=78)

    def order(words: str, routes: Sequence[Row], whole: bool = True) -> list[str]:
        haste.tell_peers(parse(words), Desired((link, *routes), {row.key: words for row in WANTED}), whole)
        return table()

    run(WANTED)
    assert order("drain", LEFT) == [SHOWN4.replace("metric 100", "metric 200"), SHOWN6.replace("100", "200")]
    assert order("maint", ()) == []
    assert order("ready", WANTED, whole=False) == []
    assert order("drain", ()) == []
    assert order("ready", WANTED) == [SHOWN4, SHOWN6]
    assert ip("link", "show", "type", "vrf") == ""
    changes = [item["change"] for item in journal.as_json()["recent"]]
    assert len(changes) == 6, changes


def test_what_others_made_is_told_and_stays():
    ip("route", "add", "blackhole", "198.51.100.1", "table", "78", "metric", "100")
    ip("-6", "route", "add", "unreachable", "2001:db8:9::/64", "table", "78")
    ip("route", "add", "local", "192.0.2.9", "dev", "lo", "table", "77", "proto", "76")
    before = table(), table(77)
    assert run(WANTED) == ["cannot announce 198.51.100.1/32: somebody else's route to it stands in table 78"]
    assert TableDriver().observe(WANTED).foreign == (
        "route 198.51.100.1/32 in table 78",
        "route 2001:db8:9::/64 in table 78",
    )
    assert run(()) == []
    assert (table(), table(77)) == before


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("route flush table 78", ["+ announced-route 198.51.100.1/32 in table 78 as first choice"]),
        (
            "route add blackhole 198.51.100.1 table 78 proto 76 metric 50",
            ["~ announced-route 198.51.100.1/32 in table 78 as metric 50 -> first choice besides metric 100 -> none"],
        ),
        (
            "route replace prohibit 198.51.100.1 table 78 proto 76 metric 100",
            ["~ announced-route 198.51.100.1/32 in table 78 as metric None -> first choice besides metric 100 -> none"],
        ),
        ("route add blackhole 198.51.100.2 table 78 proto 76", ["- announced-route 198.51.100.2/32 in table 78"]),
        ("route add blackhole 198.51.100.0/24 table 79 proto 76", ["- announced-route 198.51.100.0/24 in table 79"]),
        (
            "-6 route add blackhole 2001:db8:1::1 table 78 proto 76 metric 200",
            ["~ announced-route 2001:db8:1::1/128 in table 78 besides metric 200 -> none"],
        ),
    ],
)
def test_damage_is_seen_and_repaired_in_one_pass(damage: str, expected: list[str]):
    run(WANTED)
    ip(*damage.split())
    assert str(plan(WANTED)).splitlines() == expected
    assert run(WANTED) == []
    assert table() == [SHOWN4, SHOWN6]
    assert table(79) == []


def test_without_the_right_to_write_it_says_so():
    changes = plan(WANTED).changes
    child = os.fork()
    if not child:
        os.setresuid(65534, 65534, 65534)
        errors = {result.error for result in TableDriver().apply(changes)}
        os._exit(0 if all("that needs root (CAP_NET_ADMIN)" in error for error in errors) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_vrf_is_made_kept_and_made_anew_for_another_table():
    def look(link: Link) -> Plan:
        return diff(LinkDriver().observe([link]).rows, [link])

    run(WANTED)
    for number, before in ((78, ""), (79, "table 78 -> 79")):
        link = Link(ANNOUNCE_LINK, "vrf", table=number)
        assert before in str(look(link))
        assert [result.error for result in LinkDriver().apply(look(link).changes)] == [""]
        assert not look(link)
        assert f"vrf table {number} " in ip("-d", "link", "show", ANNOUNCE_LINK)
    assert table() == [SHOWN4, SHOWN6], "the routes do not depend on the device"
