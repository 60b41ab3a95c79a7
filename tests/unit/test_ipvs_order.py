"""Which rows must move so that an order is canonical, and what a plan says of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.ipvs import batches, codec, order
from lbnode.ipvs.batches import Known
from lbnode.ipvs.codec import Command
from lbnode.plan import diff
from lbnode.resources import Announcement, Destination, DestinationOrder, Row, ServiceKey, VirtualService

KEY = ServiceKey("198.51.100.1", "tcp", 80)
NAMES = [f"192.0.2.{number}" for number in range(1, 9)]


@given(st.permutations(NAMES))
def test_what_stands_right_is_not_touched(canonical: list[str]) -> None:
    assert order.to_move(canonical, canonical) == ()
    assert order.to_move(canonical, canonical[2:5]) == ()
    returned = [*canonical[:3], *canonical[4:], canonical[3]]
    assert list(order.to_move(returned, canonical)) == canonical[4:]


def service(key: ServiceKey, names: list[str]) -> list[Row]:
    rows = [Destination(key, name, 100, 100, serial) for serial, name in enumerate(names)]
    return [VirtualService(key), *rows, DestinationOrder(key, tuple(names))]


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (NAMES[:5] + NAMES[6:] + NAMES[5:6], "2 of 8"),
        (NAMES[:5] + NAMES[6:], "2 of 8"),
        (NAMES[::-1], "7 of 8"),
        ([*NAMES[1:], "192.0.2.99"], "7 of 8"),
    ],
)
def test_a_plan_says_how_an_order_is_mended(standing: list[str], words: str) -> None:
    """Under traffic as little as possible moves: also where one comes back, and where one goes."""
    have, want = service(KEY, standing), service(KEY, NAMES)
    line = f"~ destination-order {KEY} order {' '.join(standing)} -> {' '.join(NAMES)}  # "
    assert f"{line}rebuilt before it is announced (live while it has flows)" in str(diff(have, want)).splitlines()
    have.append(Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137"))
    assert f"{line}repaired live, {words} rows out and in" in str(diff(have, want)).splitlines()


def test_another_vip_that_is_announced_does_not_matter_unless_a_mark_may_be_its() -> None:
    other = Announcement("198.51.100.2/32", "192.0.2.129", "192.0.2.137")
    for key, words in ((KEY, "rebuilt before"), (ServiceKey.of_mark(7, 4), "repaired live")):
        have, want = service(key, NAMES[::-1]), service(key, NAMES)
        assert words in str(diff([*have, other], [*want, other]))


class Link:
    """Notes the messages it is given, and takes them all."""

    def __init__(self) -> None:
        self.commands: list[int] = []

    def exchange(self, groups):
        self.commands += [request.command for group in groups for request in group]
        return [[0] * len(group) for group in groups]


@pytest.mark.parametrize(("used", "switched"), [((), 2), ((KEY,), 0)])
def test_while_flows_are_left_the_scheduler_stays(used: tuple[ServiceKey, ...], switched: int) -> None:
    """Routers may go on sending for a moment to a node that has withdrawn a VIP."""
    have, want = service(KEY, NAMES[::-1]), service(KEY, NAMES)
    changes = diff(have, want).changes
    assert [change.quiet for change in changes] == [True]
    known = Known()
    known.saw(have, len(NAMES))
    records = {name: codec.Destination(name, 80) for name in reversed(NAMES)}
    link = Link()
    batches.reorder(link, changes, {KEY: records}, known, used)  # type: ignore[arg-type]
    assert link.commands.count(Command.SET_SERVICE) == switched
    assert link.commands.count(Command.NEW_DEST) == 8 - (not switched)
