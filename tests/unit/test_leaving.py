"""What becomes of a destination that is no longer wanted and still has connections."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.drivers import Busy
from lbnode.impact import table_states
from lbnode.leaving import between, linger
from lbnode.plan import diff
from lbnode.resources import Destination, DestinationOrder, ServiceKey, VirtualService
from lbnode.roles.inputs import Desired

WWW = ServiceKey("198.51.100.1", "tcp", 80)


def table(*addresses, weights=()):
    given_weights = weights or (100,) * len(addresses)
    rows = [Destination(WWW, a, w, 100, n) for n, (a, w) in enumerate(zip(addresses, given_weights, strict=True))]
    return (VirtualService(WWW), *rows, DestinationOrder(WWW, addresses))


A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
KEY = Destination(WWW, B, 0).key


def changes(actual, connections=3, unwanted_s=10.0):
    busy = {KEY: Busy(connections, unwanted_s)} if connections else {}
    wanted, waiting = linger(actual, Desired(table(A, C), removal_s=60), busy)
    return [str(change) for change in diff(actual, wanted.rows, wanted.reasons).changes], waiting


def test_one_with_connections_first_gets_no_new_flows_and_keeps_its_place():
    told, waiting = changes(table(A, B, C))
    words = "leaves when its 3 connections have ended, in 50 s at the latest"
    assert told == [f"~ destination 198.51.100.1:80/tcp -> 192.0.2.2 weight 100 -> 0  # {words}"]
    assert waiting == (f"198.51.100.1:80/tcp -> 192.0.2.2: {words}",)


def test_while_it_waits_there_is_nothing_to_do():
    assert changes(table(A, B, C, weights=(100, 0, 100)))[0] == []


@pytest.mark.parametrize(("connections", "unwanted_s"), [(0, 10.0), (3, 60.0), (3, 1e6)])
def test_it_goes_when_its_connections_have_ended_or_at_the_deadline(connections, unwanted_s):
    told, waiting = changes(table(A, B, C, weights=(100, 0, 100)), connections, unwanted_s)
    assert told == ["- destination 198.51.100.1:80/tcp -> 192.0.2.2"]
    assert waiting == ()


def test_it_holds_its_place_with_the_weight_that_the_others_have():
    """Else its slots would count as nobody's, and the table as a wrong one, for as long as it waits."""
    actual = [
        replace(row, table_weight=row.weight) if isinstance(row, Destination) else row
        for row in table(A, B, C, weights=(100, 0, 100))
    ]
    wanted, _ = linger(actual, Desired(table(A, C), removal_s=60), {KEY: Busy(3, 10.0)})
    (state,) = table_states(actual, wanted.rows)
    assert state.equal
    (held,) = (row.table_weight for row in wanted.rows if isinstance(row, Destination) and row.address == B)
    assert held == 100


def test_with_its_whole_service_it_goes_at_once():
    wanted, waiting = linger(table(A, B), Desired((), removal_s=60), {KEY: Busy(3, 0.0)})
    assert (wanted.rows, waiting) == ((), ())


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(NAMES, NAMES)
def test_who_stays_stands_where_it_stood_and_the_others_in_canonical_order(before, canonical):
    staying = [name for name in before if name not in canonical]
    order = between(before, canonical, staying)
    assert sorted(order) == sorted({*canonical, *staying})
    assert [name for name in order if name in canonical] == canonical
    kept = [name for name in before if name in canonical]
    if kept == [name for name in canonical if name in before]:
        assert [name for name in order if name in before] == before


def test_a_row_nobody_counts_is_not_held():
    actual = table(A, B)
    wanted, _ = linger(actual, Desired(table(A), removal_s=60), {})
    assert wanted == Desired(table(A), removal_s=60)
    assert replace(wanted, rows=()) != wanted
