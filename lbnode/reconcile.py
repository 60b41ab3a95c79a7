"""One pass: observe, diff, apply, observe again. `plan` stops after the diff; `run` goes on, for `apply` and the agent.

What fails never stops what does not depend on it; but nothing is announced, no program is reloaded, and no real server
is given new flows, on top of a failure that would hurt them (`_held_back`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from lbnode.drivers import Driver, Observed, Result
from lbnode.errors import ApplyFailed
from lbnode.leaving import linger
from lbnode.plan import Change, Plan, diff
from lbnode.resources import Announcement, Destination, File, LocalRoute, Row, Running
from lbnode.roles.inputs import Desired

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
        results = [{**result.change.as_json(), "error": result.error} for result in self.results]
        return {"plan": self.plan.as_json(), "results": results, "errors": self.errors}


def plan(desired: Desired, drivers: Sequence[Driver]) -> Plan:
    """The difference between what is and what should be, now."""
    seen = [driver.observe(_rows_of(driver, desired.rows)) for driver in drivers]
    rows = [row for observed in seen for row in observed.rows]
    busy = {key: value for observed in seen for key, value in observed.busy.items()}
    wanted, waiting = linger(rows, desired, busy)
    return replace(diff(rows, wanted.rows, wanted.reasons, _foreign(seen)), waiting=waiting)


def run(desired: Desired, drivers: Sequence[Driver], *, force: bool = False) -> Pass:
    """Makes it so. Raises UnsafePlan, with nothing changed, when the plan is dangerous and not forced."""
    wanted = left = plan(desired, drivers)
    if not force:
        wanted.raise_if_unsafe()
    results: list[Result] = []
    for _ in range(ROUNDS):
        if not left or any(result.error for result in results):
            break
        results += apply(left, drivers)
        left = plan(desired, drivers)
    return Pass(wanted, tuple(results), left)


def ensure(wanted: Desired, drivers: Sequence[Driver]) -> Pass:
    """Makes what is wanted, and takes nothing away: the ground on which the rest is decided."""
    first = left = _additions(wanted, drivers)
    results: list[Result] = []
    for _ in range(ROUNDS):
        if not left or any(result.error for result in results):
            break
        results += apply(left, drivers)
        left = _additions(wanted, drivers)
    return Pass(first, tuple(results), left)


def _additions(wanted: Desired, drivers: Sequence[Driver]) -> Plan:
    found = plan(wanted, drivers)
    return replace(found, changes=tuple(change for change in found.changes if change.new is not None), waiting=())


def apply(wanted: Plan, drivers: Sequence[Driver]) -> list[Result]:
    """Carries out the changes in their order, a run of one driver's changes at a time."""
    owner = {kind: driver for driver in drivers for kind in driver.kinds}
    results: list[Result] = []
    for driver, run_of in groupby(wanted.changes, key=lambda change: owner[type(change.row)]):
        todo: list[Change] = []
        for change in run_of:
            held = _held_back(change, results)
            if held:
                results.append(Result(change, held))
            else:
                todo.append(change)
        results += driver.apply(todo) if todo else []
    return results


def _held_back(change: Change, results: Sequence[Result]) -> str:
    """Why this change must wait, if it must: an announcement for all that is under it, a reload for its file, new
    flows for the end of the route that would refuse them."""
    failed = [result for result in results if result.error and not isinstance(result.change.row, Running)]
    row = change.new
    if isinstance(change.row, Running):
        failed = [result for result in failed if isinstance(result.change.row, File)]
    elif isinstance(row, Destination) and row.weight:
        routes = [(result, result.change.old) for result in failed]
        failed = [result for result, old in routes if isinstance(old, LocalRoute) and old.address == row.address]
    elif not isinstance(change.row, Announcement) or change.action == "delete":
        return ""
    return f"held back: {failed[0].change.row.KIND} {failed[0].change.row.title} failed" if failed else ""


def _rows_of(driver: Driver, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if isinstance(row, driver.kinds)]


def _foreign(seen: Sequence[Observed]) -> list[str]:
    return [line for observed in seen for line in observed.foreign]
