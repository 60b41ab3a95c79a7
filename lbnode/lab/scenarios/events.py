"""What can happen to tiers 2 and 3, as orders to a stack: each event, how it is undone, and when it has taken effect.

Effects are looked for where they count and in the same way for every stack: in the routers' kernels, and in the IPVS
tables of the L4 nodes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from lbnode.lab import outage
from lbnode.lab.account import Outage
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.stacks import Stack
from lbnode.lab.steer import Steer

DEADLINE_S = 180.0
LOOK_S = 0.5
"""A look at all tables takes a dozen processes, on the processor that the flows need too."""
STEADY_LOOKS = 6
"""A control plane that begins anew may do its work in steps: it is ready when it is so for this many looks in a row."""

EVENT, MOVES, RETURN = "event", "moves", "return"
PHASES = (EVENT, MOVES, RETURN)


@dataclass
class Play:
    """The machines that events are about. `used`: the L7 nodes in service; `spare`: the one that stands by."""

    stage: Stage
    stack: Stack
    used: tuple[str, ...]
    spare: str
    outages: list[Outage] = field(default_factory=list)

    @property
    def l4(self) -> str:
        """The L4 node that events are about."""
        return self.stage.l4[0]

    @property
    def l7(self) -> str:
        """The L7 node that events are about."""
        return self.used[0]

    def normal(self) -> None:
        """Waits until every L4 node carries every VIP and uses the L7 nodes in service."""
        self.wait(lambda: all(map(self.stage.routed_fully, self.stage.l4)), "every VIP by every L4 node")
        self.wait_for_l7(self.used)

    def wait_for_l7(self, names: Sequence[str]) -> None:
        self.wait(lambda: self.stage.all_in_use(names), f"exactly {', '.join(names)} in use on every L4 node")

    def wait(self, condition: Callable[[], object], what: str) -> float:
        return self.stage.wait(condition, DEADLINE_S, what, LOOK_S)

    def wait_for_l4_gone(self) -> None:
        self.wait(lambda: not self.stage.routed(self.l4), f"no route by {self.l4}")

    def wait_for_l7_gone(self, name: str = "") -> None:
        gone = name or self.l7
        self.wait(lambda: self.stage.weights_of(gone) <= {0}, f"no new flows for {gone}")

    def kill(self, name: str, programs: Sequence[str]) -> None:
        for program in programs:
            self.stage.knock_out(name, program)

    def revive(self, name: str, programs: Sequence[str]) -> None:
        for program in programs:
            self.stage.revive(name, program)


def _l4_out(play: Play) -> None:
    play.stack.l4_out(play.l4)
    play.wait_for_l4_gone()


def _l4_back(play: Play) -> None:
    play.stack.l4_back(play.l4)
    play.normal()


def _l4_kill(play: Play) -> None:
    play.kill(play.l4, play.stack.l4_programs())
    outage.silence(play.stage.lab, play.l4)
    play.wait_for_l4_gone()


def _l4_revive(play: Play) -> None:
    outage.unsilence(play.stage.lab, play.l4)
    play.revive(play.l4, play.stack.l4_programs())
    play.normal()


def _l4_cut(play: Play) -> None:
    outage.cut(play.stage.lab, play.l4)
    play.wait_for_l4_gone()


def _l4_mend(play: Play) -> None:
    outage.mend(play.stage.lab, play.l4)
    play.normal()


def _l7_drain(play: Play) -> None:
    play.stack.l7_drain(play.l7)
    play.wait_for_l7_gone()


def _l7_ready(play: Play) -> None:
    play.stack.l7_ready(play.l7)
    play.normal()


def _l7_dies(play: Play) -> None:
    """Cut off first, so that nothing says good-bye."""
    play.outages.append(Outage(play.l7, time.monotonic()))
    outage.silence(play.stage.lab, play.l7)
    play.kill(play.l7, play.stack.l7_programs())


def _l7_kill(play: Play) -> None:
    _l7_dies(play)
    play.wait_for_l7_gone()


def _l7_revive(play: Play) -> None:
    outage.unsilence(play.stage.lab, play.l7)
    play.revive(play.l7, play.stack.l7_programs())
    play.normal()


def _l7_add(play: Play) -> None:
    every = (*play.used, play.spare)
    play.stack.set_l7(every)
    play.wait_for_l7(every)


def _l7_remove(play: Play) -> None:
    rest = play.used[1:]
    play.stack.set_l7(rest)
    play.wait_for_l7(rest)


def _l7_as_before(play: Play) -> None:
    play.stack.set_l7(play.used)
    play.normal()


def _two_at_once(play: Play) -> None:
    _l7_dies(play)
    play.stack.l4_out(play.l4)
    play.wait_for_l4_gone()
    play.wait_for_l7_gone()


def _both_back(play: Play) -> None:
    play.stack.l4_back(play.l4)
    _l7_revive(play)


def _control_restarted(play: Play) -> None:
    _l7_kill(play)
    victim = play.stage.l4[1]
    play.stack.restart_control(victim)
    rest = play.used[1:]
    looks = [0]

    def steady() -> bool:
        looks[0] = looks[0] + 1 if play.stage.all_in_use(rest) else 0
        return looks[0] >= STEADY_LOOKS

    play.wait(steady, f"a steady table on {victim}")


def _nothing(_: Play) -> None:
    pass


def _l7_add_and_drain(play: Play) -> None:
    """Two changes in a row: what the first moves, the second moves again."""
    _l7_add(play)
    _l7_drain(play)


def _l7_ready_and_remove(play: Play) -> None:
    play.stack.l7_ready(play.l7)
    _l7_as_before(play)


def _l7_add_unheard(play: Play) -> None:
    """An L4 node whose control plane is dead goes on with the table that it has."""
    late, control = play.stage.l4[1], play.stack.l4_programs()[0]
    every = (*play.used, play.spare)
    play.kill(late, [control])
    play.stack.set_l7(every)
    others = [name for name in play.stage.l4 if name != late]
    play.wait(lambda: play.stage.all_in_use(every, others), f"{', '.join(every)} in use on {', '.join(others)}")


def _l7_late_as_before(play: Play) -> None:
    play.revive(play.stage.l4[1], play.stack.l4_programs()[:1])
    _l7_as_before(play)


def _l7_roll(play: Play) -> None:
    """Each L7 node in turn is drained, its control plane started anew, and taken into service again. While it drains,
    the routers move flows: they leave out an L4 node, each time another."""
    for name, left_out in zip(play.used, cycle(play.stage.l4), strict=False):
        play.stack.l7_drain(name)
        play.wait_for_l7_gone(name)
        with Steer(play.stage.lab) as steer:
            steer.over(set(play.stage.l4) - {left_out})
            play.stage.crowd.meet("long")
        play.stage.kill(name, play.stack.l7_programs()[1])
        play.stack.l7_ready(name)
        play.normal()


@dataclass(frozen=True)
class Event:
    """One thing that happens. `alone`: it is undone only when the flows have ended, as it would be an event of its own.
    `prepare`: what is done before there are any."""

    name: str
    title: str
    do: Callable[[Play], None]
    undo: Callable[[Play], None]
    alone: bool = False
    prepare: Callable[[Play], None] = _nothing


EVENTS: tuple[Event, ...] = (
    Event("l4-drained", "L4 drained", _l4_out, _l4_back),
    Event("l4-killed", "L4 killed", _l4_kill, _l4_revive),
    Event("l4-cut", "L4 link cut", _l4_cut, _l4_mend),
    Event("l7-drained", "L7 drained", _l7_drain, _l7_ready),
    Event("l7-killed", "L7 killed", _l7_kill, _l7_revive),
    Event("two-at-once", "L7 killed and L4 drained", _two_at_once, _both_back),
    Event("control", "control plane restarted, an L7 dead", _control_restarted, _l7_revive),
    Event("l7-added", "L7 added", _l7_add, _l7_as_before, alone=True),
    Event("l7-removed", "L7 removed", _l7_remove, _l7_as_before, alone=True),
    Event("l7-returned", "L7 back after a drain", _l7_ready, _nothing, prepare=_l7_drain),
    Event("two-changes", "L7 added, another drained", _l7_add_and_drain, _l7_ready_and_remove, alone=True),
    Event("l4-late", "L7 added, an L4 does not hear of it", _l7_add_unheard, _l7_late_as_before, alone=True),
    Event("l7-rolled", "every L7 restarted in turn", _l7_roll, _nothing),
)
"""Those that change who is there come last: what they leave in some tables for a while is none of the others' doing."""
