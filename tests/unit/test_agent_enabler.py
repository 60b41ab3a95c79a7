"""What people say reaches HAProxy while a pass is under way, and that pass does not undo it."""

from threading import Event, Thread

import pytest
from test_reconcile import FakeDriver

from lbnode.agent.enabler import OVERTAKEN, Enabler
from lbnode.agent.journal import Journal
from lbnode.maintenance.state import READY, parse
from lbnode.plan import Change
from lbnode.reconcile import run
from lbnode.resources import Running, ServerState
from lbnode.roles.inputs import Desired

UP = ServerState("enabler", "enabler", up=True)
DOWN = ServerState("enabler", "enabler", up=False)
OLD, NEW = Running("haproxy", "0" * 16), Running("haproxy", "1" * 16)


class Slow(FakeDriver):
    """Its reloads take until they may end."""

    def __init__(self, *rows):
        super().__init__(Running, ServerState, rows=rows)
        self.began, self.may_end = Event(), Event()

    def apply(self, changes):
        if any(isinstance(change.new, Running) for change in changes):
            self.began.set()
            assert self.may_end.wait(10)
        return super().apply(changes)


@pytest.fixture
def slow():
    return Slow(OLD, UP)


@pytest.fixture
def enabler(slow):
    found = Enabler(slow, Journal())
    found.tell(lambda: READY)
    return found


def test_a_pass_that_was_decided_before_neither_delays_nor_undoes_it(slow, enabler):
    done = []
    passing = Thread(target=lambda: done.append(run(Desired((NEW, UP)), [enabler])))
    passing.start()
    assert slow.began.wait(10)
    enabler.tell(lambda: parse("down"))
    assert DOWN in slow.rows.values(), "it waits for the pass"
    slow.may_end.set()
    passing.join(10)
    assert set(slow.rows.values()) == {NEW, DOWN}
    assert done[0].errors == []
    assert not run(Desired((NEW, DOWN)), [enabler]).plan


def test_a_change_that_was_planned_before_is_not_made(slow, enabler):
    enabler.tell(lambda: parse("down"))
    assert not run(Desired((OLD, UP)), [enabler]).plan
    (result,) = enabler.apply([Change(DOWN, UP)])
    assert (result.error, result.way) == ("", OVERTAKEN)
    assert DOWN in slow.rows.values()


def test_what_others_did_to_it_is_repaired_by_the_pass(slow, enabler):
    slow.rows[UP.key] = DOWN
    assert run(Desired((OLD, UP)), [enabler]).errors == []
    assert UP in slow.rows.values()


def test_only_another_word_is_told(slow, enabler):
    slow.rows.clear()
    enabler.tell(lambda: READY)
    assert not slow.rows
    enabler.tell(lambda: parse("0%"))
    assert list(slow.rows.values()) == [DOWN]
