"""A node that announces, on its way out: where it stands, since when, and what is waited for. PURE.

    announced --a file says so--> a second choice --step_s--> withdrawn --no packet any more, or limit_s--> gone

Everything follows from the time of the maintenance file and from what is announced, so an agent that is restarted, an
`apply` without one, and a pass that is repeated agree. A node that announces nothing is not made to announce a second
choice: the step is for what routers use now. Undone, at any point, it announces as before, at once.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lbnode.maintenance.state import AdminState, Mode, moment


class Rule(Protocol):
    """As `config.leaving.Leaving`."""

    @property
    def step(self) -> str: ...

    @property
    def step_s(self) -> float: ...

    @property
    def limit_s(self) -> float: ...


class Phase(StrEnum):
    """STEP: announced as a second choice; WITHDRAWN: packets may still come; GONE: none come, or nobody waits for
    them any more."""

    STEP = "second choice"
    WITHDRAWN = "withdrawn"
    GONE = "gone"


@dataclass(frozen=True)
class Departure:
    """`since`: when the node began to leave; `until`: when this phase ends at the latest (both in seconds since 1970,
    None when not known); `waits_for` says what ends it, and in the last one how it ended."""

    phase: Phase
    since: float | None
    until: float | None
    waits_for: str

    def as_json(self) -> dict[str, object]:
        return {**self.__dict__, "phase": str(self.phase)}

    def __str__(self) -> str:
        return f"{self.phase}, {self.waits_for}"


def age_s(admin: AdminState, rule: Rule, now: float) -> float | None:
    """For how long a node has been leaving; `step_s` stands for any longer time. None while it is in service.

    A time that is not known, or that lies ahead (a clock was set), says nothing: then no step is made.
    """
    if admin.mode is Mode.READY:
        return None
    if admin.at_once or rule.step == "none" or admin.since is None or not admin.since <= now:
        return rule.step_s
    return min(now - admin.since, rule.step_s)


def step_end(admin: AdminState, rule: Rule) -> float | None:
    """When the step is over; None when there is none."""
    if admin.mode is Mode.READY or admin.at_once or rule.step == "none" or admin.since is None:
        return None
    return admin.since + rule.step_s


def departure(
    admin: AdminState, rule: Rule, now: float, announced: int, traffic: str | None, calm: bool
) -> Departure | None:
    """Where a node stands; None while it is in service. `announced`: how many VIPs are; `traffic`: the packets seen
    last, in words, None when they were not looked at yet; `calm`: none came for long enough."""
    if admin.mode is Mode.READY:
        return None
    since, end = admin.since, step_end(admin, rule)
    if announced:
        what = f"routers choose other nodes until {moment(int(end))}" if end and end > now else "the withdrawal"
        return Departure(Phase.STEP, since, end, what)
    began = end if end is not None else since
    limit = None if began is None else began + rule.limit_s
    if calm:
        return Departure(Phase.GONE, since, None, "no packet comes any more")
    if limit is not None and limit <= now:
        return Departure(Phase.GONE, since, None, f"nobody waits any more: {traffic or 'packets were not counted'}")
    return Departure(Phase.WITHDRAWN, since, limit, f"the end of its packets: {traffic or 'not counted yet'}")
