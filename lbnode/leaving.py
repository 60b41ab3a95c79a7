"""Destinations that leave: a real server that is no longer in the cluster file gives up its place only when its flows
have ended. PURE.

Taken out of the table at once, it would lose the flows it has. So its row stays, at weight 0, as long as the kernel
counts connections on it, and no longer than the cluster file allows; only then it goes, and its share is given to
others. Every L4 node does so by itself: how long that takes is up to the flows of each.

The kernel does not tell with which weight a row at 0 holds its place in the table, and the file says it no more: it is
taken to be the commonest of the service, as `lbnode.impact` does for all rows that no file knows.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lbnode.drivers import Busy
from lbnode.impact import usual
from lbnode.resources import Destination, DestinationOrder, Key, Row, ServiceKey, VirtualService
from lbnode.roles.inputs import Desired


def linger(actual: Sequence[Row], wanted: Desired, busy: Mapping[Key, Busy]) -> tuple[Desired, tuple[str, ...]]:
    """What is wanted, and with it the rows that still have to stay; and a line for each of these."""
    if not busy:
        return wanted, ()
    services = {row.service for row in wanted.rows if isinstance(row, VirtualService)}
    staying = [row for row in actual if isinstance(row, Destination) and _stays(row, wanted, busy, services)]
    if not staying:
        return wanted, ()
    names: defaultdict[ServiceKey, set[str]] = defaultdict(set)
    for row in staying:
        names[row.service].add(row.name)
    before = {row.service: row.names for row in actual if isinstance(row, DestinationOrder)}
    rows = [
        replace(row, names=between(before.get(row.service, ()), row.names, names[row.service]))
        if isinstance(row, DestinationOrder) and row.service in names
        else row
        for row in wanted.rows
    ]
    held: defaultdict[ServiceKey, list[int]] = defaultdict(list)
    for other in wanted.rows:
        if isinstance(other, Destination) and other.service in names:
            held[other.service].append(other.table_weight)
    rows += [replace(row, weight=0, table_weight=row.weight or usual(held[row.service])) for row in staying]
    reasons = {row.key: _reason(busy[row.key], wanted.removal_s) for row in staying}
    lines = tuple(f"{row.title}: {reasons[row.key]}" for row in staying)
    return replace(wanted, rows=tuple(rows), reasons={**wanted.reasons, **reasons}), lines


def between(before: Sequence[str], canonical: Sequence[str], staying: Iterable[str]) -> tuple[str, ...]:
    """The canonical order with those that stay at the places they have: each behind the one it stands behind now."""
    left, found = set(staying), list(canonical)
    at = 0
    for name in before:
        if name in left:
            found.insert(at, name)
            at += 1
        elif name in canonical:
            at = found.index(name) + 1
    return tuple(found)


def _stays(row: Destination, wanted: Desired, busy: Mapping[Key, Busy], services: set[ServiceKey]) -> bool:
    return row.service in services and row.key in busy and busy[row.key].unwanted_s < wanted.removal_s


def _reason(busy: Busy, removal_s: int) -> str:
    left = max(0, round(removal_s - busy.unwanted_s))
    count = f"{busy.connections} connection{'' if busy.connections == 1 else 's'}"
    return f"leaves when its {count} have ended, in {left} s at the latest"
