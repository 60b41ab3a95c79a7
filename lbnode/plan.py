"""The plan: what differs between desired and actual state, as a sorted value. It is printed, refused, or applied.

`diff` is the only place where a difference is found; `lbnode plan`, `lbnode apply` and the agent share it, so what is
shown is what is done.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lbnode.errors import UnsafePlan
from lbnode.impact import TableChange, table_changes, table_states
from lbnode.ipvs import order
from lbnode.resources import ANNOUNCING, Destination, DestinationOrder, Key, Row, VirtualService

Action = Literal["create", "update", "delete"]


def counted(number: int, what: str) -> str:
    """`1 change`, `2 changes`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


TABLE_ROWS = (VirtualService, Destination, DestinationOrder)
SIGN: dict[Action, str] = {"create": "+", "update": "~", "delete": "-"}


@dataclass(frozen=True)
class Change:
    """One step. `old` is None for a create, `new` is None for a delete; `reason` says why, when there is a why.
    `quiet`: this node announces no VIP of the row, so that no client's packet meets it while it changes."""

    old: Row | None
    new: Row | None
    reason: str = ""
    quiet: bool = False

    @property
    def action(self) -> Action:
        if self.old is None:
            return "create"
        return "update" if self.new is not None else "delete"

    @property
    def row(self) -> Row:
        """The row as it should be, or as it was when it goes."""
        row = self.new or self.old
        if row is None:
            raise ValueError("a change needs a row")
        return row

    def __str__(self) -> str:
        words = [SIGN[self.action], self.row.KIND, self.row.title]
        if self.action != "delete":
            words += [f"{name} {value}" for name, value in self.differences().items()]
        return " ".join(words) + (f"  # {self.reason}" if self.reason else "")

    def differences(self) -> dict[str, str]:
        """Setting -> `new`, or `old -> new` where it changes; empty settings are left out."""
        new = self.new.settings() if self.new else {}
        if self.old is None:
            return {name: str(value) for name, value in new.items() if value not in ("", None, ())}
        old = self.old.settings()
        changed = {
            name: f"{_word(old.get(name))} -> {_word(value)}" for name, value in new.items() if value != old.get(name)
        }
        return changed or {"content": "changed"}

    def as_json(self) -> dict[str, object]:
        return {
            "action": self.action,
            "kind": self.row.KIND,
            "what": self.row.title,
            "settings": self.differences() if self.new else {},
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Plan:
    """The changes in the order in which they are made, rows of others that were seen and are left alone, what is waited
    for, and the two sides that were compared."""

    changes: tuple[Change, ...] = ()
    foreign: tuple[str, ...] = ()
    dangers: tuple[str, ...] = ()
    actual: tuple[Row, ...] = field(default=(), repr=False, compare=False)
    desired: tuple[Row, ...] = field(default=(), repr=False, compare=False)
    waiting: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        lines = [str(change) for change in self.changes]
        lines += [str(change) for change in self.impact]
        lines += [f"! {danger}" for danger in self.dangers]
        lines += [f"  waiting: {line}" for line in self.waiting]
        lines += [f"  left alone: {row}" for row in self.foreign]
        return "\n".join(lines)

    @property
    def impact(self) -> list[TableChange]:
        """What the changes do to the flows of each service whose Maglev table they change. Worked out when asked for:
        some milliseconds per table."""
        touched = {row.service for row in (change.row for change in self.changes) if isinstance(row, TABLE_ROWS)}
        return table_changes(self.actual, self.desired, touched)

    def raise_if_unsafe(self) -> None:
        if self.dangers:
            raise UnsafePlan("cannot apply: " + "; ".join(self.dangers) + "; --force does it all the same")

    def tables_as_json(self) -> dict[str, dict[str, object]]:
        """Per virtual service: the fingerprint of its Maglev table as it was found, and of the wanted one."""
        states = table_states(self.actual, self.desired, self.foreign)
        return {str(state.service): state.as_json() for state in states}

    def as_json(self) -> dict[str, object]:
        return {
            "changes": [change.as_json() for change in self.changes],
            "impact": [change.as_json() for change in self.impact],
            "dangers": list(self.dangers),
            "waiting": list(self.waiting),
            "foreign": list(self.foreign),
        }


def _word(value: object) -> str:
    return "none" if value in ("", None) else str(value)


def diff(
    actual: Iterable[Row],
    desired: Iterable[Row],
    reasons: Mapping[Key, str] | None = None,
    foreign: Iterable[str] = (),
) -> Plan:
    """What must change so that `actual` becomes `desired`. Does not depend on the order of either.

    `reasons` maps a row's key to the words that explain it. Two desired rows with one key are a bug in a role.
    """
    reasons = reasons or {}
    actual, desired = tuple(actual), tuple(desired)
    have = {row.key: row for row in actual}
    want: dict[Key, Row] = {}
    for row in desired:
        if (first := want.setdefault(row.key, row)) is not row and first != row:
            raise ValueError(f"two different rows are wanted for {row.key}")
    announced = {row.prefix.partition("/")[0] for row in have.values() if isinstance(row, ANNOUNCING)}
    changes = [
        _change(have.get(key), want.get(key), reasons.get(key, ""), announced)
        for key in _differing(have, want)
        if not _order_follows(key, have, want)
    ]
    ordered = tuple(sorted(changes, key=_when))
    return Plan(ordered, tuple(sorted(foreign)), tuple(_dangers(have, want, reasons)), actual, desired)


def _change(old: Row | None, new: Row | None, reason: str, announced: Collection[str]) -> Change:
    """An order without a reason of its own says how it will be mended."""
    row = old or new
    quiet = row is not None and _quiet(row, announced)
    if isinstance(old, DestinationOrder) and isinstance(new, DestinationOrder):
        reason = reason or order.repair(old, new, quiet=quiet)
    return Change(old, new, reason, quiet)


def _differing(have: Mapping[Key, Row], want: Mapping[Key, Row]) -> Iterator[Key]:
    """In the order of `want`, which roles make sorted but for a little: so the sorting that follows is quick. Rows are
    compared only where they are not the very same."""
    for key, new in want.items():
        old = have.get(key)
        if old is not new and old != new:
            yield key
    yield from (key for key in have if key not in want)


def _order_follows(key: Key, have: Mapping[Key, Row], want: Mapping[Key, Row]) -> bool:
    """Whether an order comes right by itself: rows that go leave gaps, rows that come stand last, in their order."""
    old, new = have.get(key), want.get(key)
    if isinstance(old, DestinationOrder) and new is None:
        return True
    if not isinstance(new, DestinationOrder):
        return False
    before = old.names if isinstance(old, DestinationOrder) else ()
    staying = [name for name in before if name in new.names]
    coming = [name for name in new.names if name not in before]
    return (*staying, *coming) == new.names


def _quiet(row: Row, announced: Collection[str]) -> bool:
    """Whether a row of a Maglev table is out of clients' reach. One by firewall mark may belong to any VIP."""
    if not isinstance(row, TABLE_ROWS):
        return False
    return not announced if row.service.protocol == "fwmark" else row.service.vip not in announced


def _when(change: Change) -> tuple[int, int, Key]:
    """What leaves first, withdrawals before all; then creates and updates up the ranks; then deletes down the ranks."""
    row = change.row
    if change.new is not None:
        return (1, row.rank, row.place)
    return (0 if row.LEAVES_FIRST else 2, -row.rank, row.place)


def _for_clients(row: Row) -> bool:
    return isinstance(row, VirtualService) and not row.service.carries_probes


def _dangers(have: Mapping[Key, Row], want: Mapping[Key, Row], reasons: Mapping[Key, str]) -> list[str]:
    """Why a plan would hurt: a service loses most of its destinations, or the node loses every service, or its last
    announcement without a reason."""
    dangers = []
    for row in have.values():
        if not isinstance(row, DestinationOrder) or row.service.carries_probes:
            continue
        wanted = want.get(row.key)
        if wanted == row or (VirtualService.KIND, *row.service) not in want:
            continue
        staying = set(wanted.names) if isinstance(wanted, DestinationOrder) else set()
        gone = sum(name not in staying for name in row.names)
        if 2 * gone > len(row.names):
            dangers.append(f"{row.service} would lose {gone} of its {len(row.names)} destinations")
    services = [row for row in have.values() if _for_clients(row)]
    if services and not any(map(_for_clients, want.values())):
        dangers.append(f"the node would lose all of its {len(services)} virtual services")
    return dangers + _silence(have, want, reasons)


def _silence(have: Mapping[Key, Row], want: Mapping[Key, Row], reasons: Mapping[Key, str]) -> list[str]:
    """Roles give a reason for every announcement that the cluster file leads to, made or not: people have taken the
    node out, or too few servers are up. One that goes without is not in the file any more, perhaps by mistake."""
    told = [row for row in have.values() if isinstance(row, ANNOUNCING)]
    lost = [row.title for row in told if row.key not in reasons]
    if lost and not any(isinstance(row, ANNOUNCING) for row in want.values()):
        return [f"the node would withdraw its last announcement{'s' * (len(told) > 1)}, {_some(lost)}"]
    return []


def _some(titles: list[str]) -> str:
    more = f" and {len(titles) - 2} more" if len(titles) > 2 else ""
    return ", ".join(sorted(titles)[:2]) + more
