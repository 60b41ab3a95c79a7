"""Whole runs of changes as batches of messages, and what became of each.

Where no client's packet comes, a table is built once and not once per row: destinations that come to an empty service,
and orders that are wrong, are carried out while the service has no scheduler, and the last message gives it back. Under
traffic every row is a message of its own (`lbnode.ipvs.steps` says why). Measured on Linux 6.1 with two processors, 20
services of 100 rows: 44-83 ms this way, 366-480 ms under rr with a switch to mh, 486-770 ms under mh.
"""

import errno
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lbnode.drivers import Result
from lbnode.ipvs import codec, order, steps
from lbnode.ipvs.codec import Command
from lbnode.ipvs.messages import Request
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.maglev import SLOTS
from lbnode.plan import Change
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

SCHEDULER = "mh"
TOO_MANY = "the service would have {} destinations, and a Maglev table has {} slots"
COLD_ROWS = 3
"""From so many rows on, an empty service gets its table at the end."""


@dataclass
class Known:
    """What batches must know besides the changes: services as they are (or, when wanted, as they will be), how many
    destinations they have, and with which weights those hold their places in the table."""

    services: dict[ServiceKey, VirtualService] = field(default_factory=dict)
    counts: Counter[ServiceKey] = field(default_factory=Counter)
    table_weights: dict[ServiceKey, dict[str, int]] = field(default_factory=dict)

    def saw(self, found: Iterable[Row], destinations: int) -> None:
        """The rows of one service, and how many destinations it has, others' included."""
        for row in found:
            if isinstance(row, VirtualService):
                self.services[row.service] = row
                self.counts[row.service] = destinations

    def wants(self, wanted: Iterable[Row]) -> None:
        for row in wanted:
            if isinstance(row, Destination):
                self.table_weights.setdefault(row.service, {})[row.name] = row.table_weight
            elif isinstance(row, VirtualService):
                self.services[row.service] = row

    def done(self, change: Change) -> None:
        """Keeps count of what was carried out."""
        if isinstance(change.row, VirtualService) and change.old is None:
            self.counts.setdefault(change.row.service, 0)
        elif isinstance(change.row, Destination):
            self.counts[change.row.service] += (change.new is not None) - (change.old is not None)


class _Step(NamedTuple):
    """Some messages, and the change (by index) that they belong to. `said` is what failed, in words, where that is
    another; the errors of the first `tolerated` messages do not count."""

    owner: int
    requests: list[Request]
    said: Change | None = None
    tolerated: int = 0


def write(link: GenericNetlink, changes: Sequence[Change], known: Known) -> list[Result]:
    """Time-outs, services and destinations. What exists already when it should be made is set instead."""
    errors = _refused(changes, known)
    plan = _steps(changes, errors, _cold(changes, errors, known))
    outcomes = link.exchange([step.requests for step in plan])
    late = [
        index
        for index, (step, codes) in enumerate(zip(plan, outcomes, strict=True))
        if step.said is None and changes[step.owner].old is None and codes and codes[0] == errno.EEXIST
    ]
    again = link.exchange([steps.instead(changes[plan[index].owner]) for index in late])
    for index, codes in zip(late, again, strict=True):
        outcomes[index] = codes
    return _results(changes, errors, zip(plan, outcomes, strict=True), known)


def reorder(
    link: GenericNetlink,
    changes: Sequence[Change],
    found: Mapping[ServiceKey, Mapping[str, codec.Destination]],
    known: Known,
    used: Collection[ServiceKey] = (),
) -> list[Result]:
    """Mends orders. `found` has each service's destinations as they stand, by name, oldest first; `used` are those with
    connections: to what was withdrawn a moment ago routers may still send. An order that goes needs nothing."""
    errors = [""] * len(changes)
    plan: list[_Step] = []
    for index, change in enumerate(changes):
        if not isinstance(change.new, DestinationOrder):
            continue
        key, canonical = change.new.service, change.new.names
        records, weights, service = found[key], known.table_weights.get(key, {}), known.services.get(key)
        if missing := [name for name in canonical if name not in records]:
            errors[index] = f"{steps.cannot(change)}: {', '.join(missing)} is not there"
        elif change.quiet and service is not None and key not in used:
            moves = steps.moves(key, records, canonical, weights)
            plan.append(_Step(index, [steps.without_scheduler(Command.SET_SERVICE, service)]))
            plan += [_Step(index, requests, tolerated=1) for requests in moves]
            plan.append(_Step(index, [steps.with_scheduler(service)], Change(service, service)))
        else:
            moves = steps.moves(key, records, order.to_move(list(records), canonical), weights)
            # Only what puts a row back counts: had it gone already, so much the better.
            plan += [_Step(index, requests, tolerated=1) for requests in moves]
    outcomes = link.exchange([step.requests for step in plan])
    return _results(changes, errors, zip(plan, outcomes, strict=True), known)


def _steps(changes: Sequence[Change], errors: Sequence[str], cold: Mapping[ServiceKey, VirtualService]) -> list[_Step]:
    """The messages of all changes that are not refused; those of cold services in between two of their own."""
    todo: list[_Step] = []
    owners: dict[ServiceKey, int] = {}
    made: set[ServiceKey] = set()
    for index, (change, why) in enumerate(zip(changes, errors, strict=True)):
        row = change.new
        if why:
            continue
        if change.old is None and isinstance(row, VirtualService | Destination) and row.service in cold:
            owners.setdefault(row.service, index)
        if change.old is None and isinstance(row, VirtualService) and row.service in cold:
            made.add(row.service)
            todo.append(_Step(index, [steps.without_scheduler(Command.NEW_SERVICE, row)]))
        else:
            todo.append(_Step(index, steps.requests(change)))
    before = [
        # An empty service is made anew: to take its scheduler away would last an RCU grace period.
        _Step(owners[key], steps.anew(row), Change(row, row), tolerated=1)
        for key, row in cold.items()
        if key not in made
    ]
    after = [_Step(owners[key], [steps.with_scheduler(row)], Change(row, row)) for key, row in cold.items()]
    return [*before, *todo, *after]


def _cold(changes: Sequence[Change], errors: Sequence[str], known: Known) -> dict[ServiceKey, VirtualService]:
    """The services whose table is built once, at the end: nobody's packets come, they are empty or made in this run,
    and get some rows."""
    made: set[ServiceKey] = set()
    coming: Counter[ServiceKey] = Counter()
    for change, why in zip(changes, errors, strict=True):
        if change.old is None and change.quiet and not why:
            if isinstance(change.new, VirtualService):
                made.add(change.new.service)
            elif isinstance(change.new, Destination):
                coming[change.new.service] += 1
    return {
        key: known.services[key]
        for key, count in coming.items()
        if count >= COLD_ROWS
        and key in known.services
        and known.services[key].scheduler == SCHEDULER
        and (key in made or known.counts.get(key) == 0)
    }


def _refused(changes: Sequence[Change], known: Known) -> list[str]:
    """For each change, why it is refused: a service with scheduler mh would have more destinations than slots. The
    kernel takes them, with a stale table, and refuses to give mh to a service that has them (ip_vs_mh_reassign)."""
    totals = Counter(known.counts)
    totals.update(
        change.new.service for change in changes if change.old is None and isinstance(change.new, Destination)
    )
    errors = []
    for change in changes:
        old, new = change.old, change.new
        total = 0
        if old is None and isinstance(new, Destination):
            service = known.services.get(new.service)
            total = totals[new.service] if service is None or service.scheduler == SCHEDULER else 0
        elif isinstance(old, VirtualService) and isinstance(new, VirtualService):
            total = known.counts[new.service] if old.scheduler != SCHEDULER == new.scheduler else 0
        errors.append(f"{steps.cannot(change)}: {TOO_MANY.format(total, SLOTS)}" if total > SLOTS else "")
    return errors


def _results(
    changes: Sequence[Change], errors: list[str], done: Iterable[tuple[_Step, Sequence[int]]], known: Known
) -> list[Result]:
    for step, codes in done:
        if code := next(filter(None, codes[step.tolerated :]), 0):
            errors[step.owner] = errors[step.owner] or steps.error(step.said or changes[step.owner], code)
    for change, why in zip(changes, errors, strict=True):
        if not why:
            known.done(change)
    return [Result(change, why) for change, why in zip(changes, errors, strict=True)]
