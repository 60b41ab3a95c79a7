"""What a plan says of the flows it moves, and the fingerprints in status, from rows as roles and kernel give them."""

import json
from dataclasses import replace

import pytest

from lbnode import impact, maglev
from lbnode.maglev import Impact
from lbnode.plan import diff
from lbnode.resources import Destination, DestinationOrder, ServiceKey, Sysctl, VirtualService

WEB = ServiceKey("198.51.100.1", "tcp", 80)
WEB6 = ServiceKey("2001:db8:5::1", "tcp", 80)


def addresses(count, key=WEB):
    return [f"2001:db8::{number}" if ":" in key.vip else f"192.0.2.{number}" for number in range(1, count + 1)]


def service(count_or_order, weights=None, key=WEB, **settings):
    """A service's rows; `weights` for those that are not at 100."""
    order = addresses(count_or_order, key) if isinstance(count_or_order, int) else list(count_or_order)
    weights = weights or {}
    return [
        VirtualService(key, **settings),
        *(Destination(key, address, weights.get(address, 100), 100, serial) for serial, address in enumerate(order)),
        DestinationOrder(key, tuple(order)),
    ]


def seen(rows):
    """The same as a driver observes it: a row at weight 0 does not say what it holds its slots with."""
    return [replace(row, table_weight=row.weight) if isinstance(row, Destination) else row for row in rows]


def lines(before, after):
    return [line for line in str(diff(seen(before), after)).splitlines() if line.startswith("impact")]


DOWN = {"192.0.2.3": 0}


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (service(13), service(14), "8.7 % of new flows move, 7.2 % unavoidable"),
        (service(14), service(13), "8.7 % of new flows move, 7.2 % unavoidable"),
        (service(14), service(14, DOWN), "7.1 % of new flows move, 7.1 % unavoidable"),
        (service(14, DOWN), service(14), "7.1 % of new flows move, 7.1 % unavoidable"),
        (service(14), service(14, DOWN, flags=("mh-port",)), "7.1 % of new flows move, 7.1 % unavoidable"),
        (
            service(14),
            service(14, flags=("mh-fallback", "mh-port", "persistent")),
            "0 % of new flows move, 0 % unavoidable",
        ),
        (service(14), service(14, flags=("mh-fallback",)), "92.9 % of new flows move, 0 % unavoidable"),
        (service(14), service(addresses(14)[::-1]), "1 % of new flows move, 0.1 % unavoidable"),
        (service(2), service(1), "50 % of new flows move, 50 % unavoidable"),
        (service(2), service(2, {"192.0.2.1": 0, "192.0.2.2": 0}), "100 % of new flows move, 100 % unavoidable"),
        (service(2, {"192.0.2.1": 0, "192.0.2.2": 0}), service(2), "0 % of new flows move, 0 % unavoidable"),
        (service(0), service(2), "0 % of new flows move, 0 % unavoidable"),
        # One that leaves while it is drained: its flows, which others have, are shared out anew. The kernel does not
        # say what it held its slots with; the others' weight is taken for it.
        (service(14, {"192.0.2.14": 0}), service(13), "8.1 % of new flows move, under 0.1 % unavoidable"),
    ],
)
def test_the_plan_says_what_share_of_new_flows_moves(before, after, line):
    assert lines(before, after) == [f"impact 198.51.100.1:80/tcp: {line}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (service(3, DOWN), service(3, DOWN)),
        ([], service(3)),
        (service(3), []),
        (service(3, scheduler="rr", flags=()), service(3)),
        (service(3), [replace(row, tunnel="gue") if isinstance(row, Destination) else row for row in service(3)]),
        ([Sysctl("net.ipv4.ip_forward", "0")], [Sysctl("net.ipv4.ip_forward", "1")]),
    ],
)
def test_nothing_is_said_where_no_table_changes_into_another(before, after):
    assert lines(before, after) == []


def test_each_service_that_changes_has_its_line_and_json():
    before = [*service(3), *service(3, key=WEB6), *service(2, key=WEB._replace(port=443))]
    after = [*service(4), *service(4, key=WEB6), *service(2, key=WEB._replace(port=443))]
    plan = diff(seen(before), after)
    assert [str(change.service) for change in plan.impact] == ["198.51.100.1:80/tcp", "[2001:db8:5::1]:80/tcp"]
    found = json.loads(json.dumps(plan.as_json()))["impact"]
    assert found[0].keys() == {"service", "moved", "unavoidable", "before", "after"}
    assert found[0]["unavoidable"] == pytest.approx(0.25, abs=0.001)
    assert found[0]["moved"] == pytest.approx(plan.impact[0].impact.moved, abs=1e-6)
    assert found[0]["before"] != found[0]["after"]


def test_weights_that_keep_their_ratio_move_nothing():
    before, after = service(3), [replace(row, weight=50) if isinstance(row, Destination) else row for row in service(3)]
    assert diff(seen(before), after).impact[0].impact == Impact(0, 0)


def test_a_plan_shows_impact_between_changes_and_dangers():
    text = str(diff(seen(service(5)), service(2), foreign=["198.51.100.9:80/tcp (rr, 0 destinations)"]))
    assert [line.split()[0] for line in text.splitlines()] == ["-", "-", "-", "impact", "!", "left"]


def states(before, after, foreign=()):
    return {str(state.service): state for state in impact.table_states(seen(before), after, foreign)}


def test_the_fingerprint_of_a_table_that_is_right_is_the_wanted_one():
    """Drained rows included: what the kernel does not tell is taken from the wanted row."""
    found = states(service(3, DOWN), service(3, DOWN))["198.51.100.1:80/tcp"]
    assert found.equal
    assert len(found.found) == 12


@pytest.mark.parametrize(
    "other",
    [
        service(4),
        service(addresses(3)[::-1]),
        service(3),
        service(3, {"192.0.2.3": 50}),
        service(3, DOWN, flags=("mh-port",)),
        service(3, DOWN, scheduler="rr", flags=()),
        [],
    ],
)
def test_the_fingerprint_of_any_other_differs(other):
    found = states(other, service(3, DOWN))["198.51.100.1:80/tcp"]
    assert not found.equal
    assert found.wanted


def test_a_destination_of_others_makes_it_another_table():
    line = "198.51.100.1:80/tcp -> 192.0.2.7:8080 (not the service's port)"
    assert not states(service(3), service(3), [line])["198.51.100.1:80/tcp"].equal
    assert states(service(3), service(3), ["198.51.100.9:80/tcp (rr, 1 destination)"])["198.51.100.1:80/tcp"].equal


def test_two_vips_with_the_same_servers_have_the_same_table():
    both = [*service(3), *service(3, key=WEB._replace(vip="198.51.100.2"))]
    assert len({state.found for state in states(both, both).values()}) == 1


@pytest.mark.parametrize(("share", "words"), [(0, "0 %"), (0.0004, "under 0.1 %"), (0.077, "7.7 %"), (1, "100 %")])
def test_percent(share, words):
    assert impact.percent(share) == words


@pytest.mark.parametrize(("count", "without"), [(82, 0), (83, 1), (100, 18)])
def test_servers_without_slots_are_counted(count, without):
    weights = [100] * (count - 1) + [99]
    table = maglev.build([maglev.Server(f"192.0.2.{n}", 80, w, w) for n, w in enumerate(weights)], 4)
    assert impact.without_slots(weights) == without == count - len(set(table.slots))
