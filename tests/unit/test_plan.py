"""The laws of the plan, and the order and words of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import UnsafePlan
from lbnode.plan import diff
from lbnode.resources import (
    Address,
    Announcement,
    Destination,
    DestinationOrder,
    File,
    Link,
    LocalRoute,
    Row,
    Rule,
    Running,
    ServiceKey,
    Sysctl,
    VirtualService,
)

WEB = ServiceKey("198.51.100.1", "tcp", 80)
VIPS = [f"198.51.100.{last}" for last in range(1, 5)]

rows = st.one_of(
    st.builds(
        Sysctl, st.sampled_from(["net.ipv4.ip_forward", "net.ipv4.conf.lb-ipip.rp_filter"]), st.sampled_from("01")
    ),
    st.builds(Link, st.sampled_from(["lb-vip", "lb-ipip"]), st.sampled_from(["dummy", "ipip"])),
    st.builds(Address, st.sampled_from(VIPS), st.just("lb-vip")),
    st.builds(File, st.just("/etc/lb/generated/haproxy.cfg"), st.sampled_from(["a\n", "b\n"])),
    st.builds(Running, st.just("haproxy"), st.sampled_from(["one", "two"])),
    st.builds(VirtualService, st.sampled_from([ServiceKey(vip, "tcp", 80) for vip in VIPS])),
    st.builds(Destination, st.just(WEB), st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.integers(0, 2)),
    st.builds(LocalRoute, st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.sampled_from(["192.0.2.8", "192.0.2.9"])),
    st.builds(Rule, st.sampled_from([4, 6]), st.just(200), st.sampled_from([77, 78]), st.sampled_from(["", "lo"])),
    st.builds(
        Announcement, st.sampled_from([f"{vip}/32" for vip in VIPS]), st.just("192.0.2.129"), st.just("192.0.2.3")
    ),
)
states = st.lists(rows, max_size=12, unique_by=lambda row: row.key)


@given(rows)
def test_a_key_that_is_written_out_is_the_usual_one(row):
    assert row.key == Row.key.fget(row)


@given(states)
def test_a_state_does_not_differ_from_itself(state):
    assert not diff(state, state)


@given(states, states)
def test_carrying_out_the_plan_gives_the_desired_state(actual, desired):
    have = {row.key: row for row in actual}
    for change in diff(actual, desired).changes:
        if change.new is None:
            del have[change.row.key]
        else:
            have[change.row.key] = change.new
    assert set(have.values()) == set(desired)


@given(states, states, st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_its_inputs(actual, desired, random):
    before = diff(actual, desired)
    random.shuffle(actual)
    random.shuffle(desired)
    assert diff(actual, desired) == before


@given(states, states)
def test_withdrawals_come_first_creates_go_up_and_deletes_go_down(actual, desired):
    changes = diff(actual, desired).changes
    first = {Announcement: "withdraw", LocalRoute: "take up again"}
    kinds = [first.get(type(c.row), "delete") if c.action == "delete" else "make" for c in changes]
    assert kinds == sorted(kinds, key=["withdraw", "take up again", "make", "delete"].index)
    made = [c.row.rank for c in changes if c.action != "delete"]
    gone = [c.row.rank for c, kind in zip(changes, kinds, strict=True) if kind == "delete"]
    assert made == sorted(made)
    assert gone == sorted(gone, reverse=True)


def test_the_text_says_what_where_and_why():
    old = Destination(WEB, "192.0.2.193", 100)
    new = Destination(WEB, "192.0.2.193", 0)
    plan = diff([old], [new], {new.key: "down: HTTP 503"}, ["198.51.100.9:53/udp (rr, 1 destinations)"])
    assert str(plan).splitlines() == [
        "~ destination 198.51.100.1:80/tcp -> 192.0.2.193 weight 100 -> 0  # down: HTTP 503",
        "  left alone: 198.51.100.9:53/udp (rr, 1 destinations)",
    ]


def test_a_failed_server_ends_here_before_it_loses_new_flows_and_no_longer_before_it_gets_them():
    """IPVS keeps a route with each destination, and SET_DEST drops it; new flows to a local address are refused."""
    up, down = Destination(WEB, "192.0.2.193", 100), Destination(WEB, "192.0.2.193", 0)
    route = LocalRoute("192.0.2.193", "192.0.2.137")
    failing = ["+ local-route 192.0.2.193 source 192.0.2.137", f"~ destination {up.title} weight 100 -> 0"]
    assert str(diff([up], [down, route])).splitlines() == failing
    back = ["- local-route 192.0.2.193", f"~ destination {up.title} weight 0 -> 100"]
    assert str(diff([down, route], [up])).splitlines() == back


def test_two_different_rows_for_one_thing_are_a_bug():
    with pytest.raises(ValueError, match="two different rows"):
        diff([], [Link("lb-vip", "dummy"), Link("lb-vip", "ipip")])


def service(*addresses, weight=100):
    destinations = [Destination(WEB, a, weight, serial=n) for n, a in enumerate(addresses)]
    return [VirtualService(WEB), *destinations, DestinationOrder(WEB, tuple(addresses))]


def test_destinations_are_made_in_canonical_order_not_by_address():
    plan = diff([], service("192.0.2.9", "192.0.2.10", "192.0.2.1"))
    made = [c.row.address for c in plan.changes if isinstance(c.row, Destination)]
    assert made == ["192.0.2.9", "192.0.2.10", "192.0.2.1"]
    assert not [c for c in plan.changes if isinstance(c.row, DestinationOrder)]


def test_a_destination_added_at_the_end_needs_no_re_order_but_one_in_the_middle_does():
    before = service("192.0.2.1", "192.0.2.2")
    assert str(diff(before, service("192.0.2.1", "192.0.2.2", "192.0.2.3"))).count("destination-order") == 0
    assert str(diff(before, service("192.0.2.1", "192.0.2.3", "192.0.2.2"))).count("~ destination-order") == 1


def test_a_destination_that_went_by_hand_comes_back_with_its_place():
    should = service("192.0.2.1", "192.0.2.2", "192.0.2.3")
    plan = str(diff(service("192.0.2.1", "192.0.2.3"), should))
    assert "+ destination 198.51.100.1:80/tcp -> 192.0.2.2" in plan
    assert "~ destination-order" in plan


def test_losing_most_destinations_or_every_service_is_refused():
    before = service("192.0.2.1", "192.0.2.2", "192.0.2.3")
    with pytest.raises(UnsafePlan, match="would lose 2 of its 3 destinations"):
        diff(before, service("192.0.2.1")).raise_if_unsafe()
    with pytest.raises(UnsafePlan, match="all of its 1 virtual services"):
        diff(before, []).raise_if_unsafe()
    diff(before, service("192.0.2.1", "192.0.2.2")).raise_if_unsafe()


def test_the_last_announcement_goes_for_a_reason_or_by_force():
    first, second = (Announcement(f"{vip}/32", "192.0.2.1", "192.0.2.9") for vip in VIPS[:2])
    diff([first, second], [second]).raise_if_unsafe()
    diff([first], [], {first.key: "this node is in drain"}).raise_if_unsafe()
    with pytest.raises(UnsafePlan, match=r"would withdraw its last announcement, 198.51.100.1/32 to 192.0.2.1"):
        diff([first], []).raise_if_unsafe()
    with pytest.raises(UnsafePlan, match=r"its last announcements, 198.51.100.2/32 to 192.0.2.1"):
        diff([first, second], [], {first.key: "0 of 2 servers up"}).raise_if_unsafe()
