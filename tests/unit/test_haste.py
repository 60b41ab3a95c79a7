"""What is told before the whole picture is looked at, and what is not."""

import pytest
from test_reconcile import FakeDriver

from lbnode.agent.haste import Haste
from lbnode.agent.journal import Journal
from lbnode.maintenance.state import READY, parse
from lbnode.resources import Announcement, Running, Sysctl
from lbnode.roles.inputs import Desired

ONE = Announcement("198.51.100.1/32", "192.0.2.1", "192.0.2.11")
SECOND = Announcement("198.51.100.1/32", "192.0.2.1", "192.0.2.11", communities=("65535:0",))
RUNS = Running("exabgp", "c1")
ANOTHER = Running("exabgp", "c2")


@pytest.mark.parametrize(
    ("have", "want", "whole", "found"),
    [
        ([ONE], [SECOND], True, [SECOND]),
        ([SECOND], [], True, []),
        ([SECOND], [ONE], True, [ONE]),
        ([], [ONE], True, [ONE]),
        ([], [ONE], False, []),  # who knows on what ground it would stand
        ([SECOND], [ONE], False, [ONE]),
    ],
)
def test_announcements_come_first_and_alone(have, want, whole, found):
    others, peers = FakeDriver(Sysctl), FakeDriver(Running, Announcement, rows=[RUNS, *have])
    journal = Journal()
    haste = Haste([others, peers], journal)
    wanted = Desired((Sysctl("net.x", "1"), ANOTHER, *want), {ONE.key: "as the node leaves"})
    haste.tell_peers(READY, wanted, whole)
    assert set(peers.rows.values()) == {RUNS, *have}  # nobody has said anything new
    haste.tell_peers(parse("drain"), wanted, whole)
    assert set(peers.rows.values()) == {RUNS, *found}
    assert not others.rows
    assert len(journal.as_json()["recent"]) == (have != found)
    peers.rows.clear()
    haste.tell_peers(parse("drain"), wanted, whole)
    assert not peers.rows  # once is enough: the pass does the rest
