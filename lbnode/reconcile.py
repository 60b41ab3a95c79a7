"""One pass: observe, diff, apply, observe again. `plan` stops after the diff; `run` goes on, for `apply` and the agent.

What fails never stops what does not depend on it; but nothing is announced, no program is reloaded, and no real server
is given new flows, on top of a failure that would hurt them (`_held_back`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby

from lbnode.drivers import Driver, Observed, Result
from lbnode.errors import ApplyFailed
from lbnode.leaving import linger
from lbnode.plan import Change, Plan, diff
from lbnode.resources import (
    ANNOUNCING,
    Certificate,
    Destination,
    File,
    LocalRoute,
    PoolServer,
    ProxyTable,
    Row,
    Running,
)
from lbnode.roles.inputs import Desired

FOLLOW_FILES = (Running, Certificate, ProxyTable, PoolServer)
"""What a running program holds: the file comes first, so that the next start finds the same."""
ROUNDS = 2
"""A device that had to be made anew starts with default settings, which only shows when it is there."""


@dataclass(frozen=True)
class Pass:
    """What one pass found and did. `left` is what still differs afterwards; empty when all is well."""

    plan: Plan
    results: tuple[Result, ...] = ()
    left: Plan = field(default_factory=Plan)

    @property
    def errors(self) -> list[str]:
        failed = [f"{result.change}: {result.error}" for result in self.results if result.error]
        told = {result.change.row.key for result in self.results if result.error}
        silent = [f"{change}: did not take" for change in self.left.changes if change.row.key not in told]
        return failed + silent

    def raise_if_failed(self) -> None:
        if self.errors:
            raise ApplyFailed("cannot make this node right:\n  " + "\n  ".join(self.errors))

    def as_json(self) -> dict[str, object]:
        results = [{**result.change.as_json(), "error": result.error, "way": result.way} for result in self.results]
        return {"plan": self.plan.as_json(), "results": results, "errors": self.errors}


def plan(desired: Desired, drivers: Sequence[Driver], last: Plan | None = None) -> Plan:
    """The difference between what is and what should be, now. `last` is an earlier plan: where it found nothing to do,
    and both sides are what they were, it is the answer again, without another comparison of all rows."""
    seen = [driver.observe(desired.of(driver.kinds)) for driver in drivers]
    rows = tuple(chain.from_iterable(observed.rows for observed in seen))
    foreign = tuple(sorted(_foreign(seen)))
    busy = {key: value for observed in seen for key, value in observed.busy.items()}
    wanted, waiting = linger(rows, desired, busy)
    if last is not None and _same(last, rows, wanted.rows) and (last.foreign, last.waiting) == (foreign, waiting):
        return last
    return replace(diff(rows, wanted.rows, wanted.reasons, foreign), waiting=waiting)


def _same(last: Plan, rows: tuple[Row, ...], wanted: tuple[Row, ...]) -> bool:
    # Comparing tuples is quick where their items are the very same, as nearly all are that a driver has read again.
    return not last.changes and last.desired is wanted and last.actual == rows


def run(desired: Desired, drivers: Sequence[Driver], *, force: bool = False, last: Plan | None = None) -> Pass:
    """Makes it so. `last` as in `plan`. Raises UnsafePlan, with nothing changed, when the plan is dangerous and not
    forced."""
    wanted = plan(desired, drivers, last)
    if not force:
        wanted.raise_if_unsafe()
    return _carry_out(wanted, lambda: plan(desired, drivers), drivers)


def ensure(wanted: Desired, drivers: Sequence[Driver]) -> Pass:
    """Makes what is wanted, and takes nothing away: the ground on which the rest is decided."""
    return _carry_out(_additions(wanted, drivers), lambda: _additions(wanted, drivers), drivers)


def _carry_out(first: Plan, look: Callable[[], Plan], drivers: Sequence[Driver]) -> Pass:
    """Does what the first plan says, and what a further look finds left, as long as nothing fails."""
    left = first
    results: list[Result] = []
    for _ in range(ROUNDS):
        if not left or any(result.error for result in results):
            break
        results += apply(left, drivers)
        left = look()
    return Pass(first, tuple(results), left)


def _additions(wanted: Desired, drivers: Sequence[Driver]) -> Plan:
    """What is wanted and not so. All else that is there, be it a large table, is not compared with anything, but for
    announcements: they say which VIPs clients' packets come for."""
    keys = {row.key for row in wanted.rows}
    seen = chain.from_iterable(driver.observe(wanted.of(driver.kinds)).rows for driver in drivers)
    found = diff((row for row in seen if isinstance(row, ANNOUNCING) or row.key in keys), wanted.rows, wanted.reasons)
    return replace(found, changes=tuple(change for change in found.changes if change.new is not None))


def apply(wanted: Plan, drivers: Sequence[Driver]) -> list[Result]:
    """Carries out the changes in their order, a run of one driver's changes at a time."""
    owner = {kind: driver for driver in drivers for kind in driver.kinds}
    results: list[Result] = []
    failed: list[Result] = []
    for driver, run_of in groupby(wanted.changes, key=lambda change: owner[type(change.row)]):
        todo: list[Change] = []
        for change in run_of:
            if held := _held_back(change, failed):
                results.append(Result(change, held))
                failed += _failed(results[-1:])
            else:
                todo.append(change)
        done = driver.apply(todo) if todo else []
        results += done
        failed += _failed(done)
    return results


def _failed(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.error and not isinstance(result.change.row, Running)]


def _held_back(change: Change, failed: Sequence[Result]) -> str:
    """Why this change must wait, if it must: an announcement for all that is under it, a reload for its file, new
    flows for the end of the route that would refuse them."""
    if not failed:
        return ""
    row = change.new
    if isinstance(change.row, FOLLOW_FILES):
        failed = [result for result in failed if isinstance(result.change.row, File)]
    elif isinstance(row, Destination) and row.weight:
        routes = [(result, result.change.old) for result in failed]
        failed = [result for result, old in routes if isinstance(old, LocalRoute) and old.address == row.address]
    elif not isinstance(change.row, ANNOUNCING) or change.action == "delete":
        return ""
    return f"held back: {failed[0].change.row.KIND} {failed[0].change.row.title} failed" if failed else ""


def _foreign(seen: Sequence[Observed]) -> list[str]:
    return [line for observed in seen for line in observed.foreign]
