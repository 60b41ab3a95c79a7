"""From rows to Maglev tables: what a plan moves, per service, and whether the kernel's table is the wanted one. PURE.

`lbnode.maglev` knows the algorithm; this module knows which rows make a table. Two things cannot be seen in rows:
- A destination at weight 0 holds its slots with its last weight above 0, which the kernel does not tell. The wanted row
  says it; for one that no row wants any more it is taken to be the commonest weight among the others of its service.
- Destinations of others inside a service of ours stand in its table too. What a plan moves is told without them; a
  table that has any counts as another than the wanted one.

Only services with scheduler mh have a table.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice

from lbnode import maglev
from lbnode.maglev import Family, Impact, Server, Table
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

SCHEDULER = "mh"


@dataclass(frozen=True)
class TableChange:
    """One service's table as it is and as it will be."""

    service: ServiceKey
    before: Table
    after: Table

    @property
    def impact(self) -> Impact:
        return maglev.impact(self.before, self.after)

    def __str__(self) -> str:
        """`impact 198.51.100.1:80/tcp: 7.7 % of new flows move, 7.1 % unavoidable`."""
        moved, unavoidable = self.impact
        return f"impact {self.service}: {percent(moved)} of new flows move, {percent(unavoidable)} unavoidable"

    def as_json(self) -> dict[str, object]:
        moved, unavoidable = self.impact
        return {
            "service": str(self.service),
            "moved": round(moved, 6),
            "unavoidable": round(unavoidable, 6),
            "before": maglev.fingerprint(self.before),
            "after": maglev.fingerprint(self.after),
        }


@dataclass(frozen=True)
class TableState:
    """Fingerprints of one service's table as the kernel has it, and as it should be; empty where there is none, or
    where others' destinations stand in it."""

    service: ServiceKey
    found: str
    wanted: str

    @property
    def equal(self) -> bool:
        return self.found == self.wanted

    def as_json(self) -> dict[str, object]:
        return {"fingerprint": self.found, "wanted": self.wanted, "equal": self.equal}


def percent(share: float) -> str:
    """`0 %`, `under 0.1 %`, `7.7 %`, `50 %`."""
    if share < 5e-9:
        return "0 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %" if share >= 0.001 else "under 0.1 %"


def table_changes(actual: Iterable[Row], desired: Iterable[Row], touched: Collection[ServiceKey]) -> list[TableChange]:
    """The tables that change, of those services that are there before and after; sorted by service. A service that
    comes has no flow to move, one that goes keeps none."""
    if not touched:
        return []
    wanted = _rows_of(desired, touched)
    before, after = tables(remembering(_rows_of(actual, touched), wanted)), tables(wanted)
    both = sorted(before.keys() & after.keys())
    return [TableChange(key, before[key], after[key]) for key in both if before[key] != after[key]]


def table_states(actual: Sequence[Row], desired: Sequence[Row], foreign: Iterable[str] = ()) -> list[TableState]:
    """Every service's table in the kernel beside the wanted one; sorted by service. `foreign` as drivers tell it."""
    shared = {line.partition(" -> ")[0] for line in foreign if " -> " in line}
    found, wanted = tables(remembering(actual, desired)), tables(desired)

    def mark(key: ServiceKey, of: Mapping[ServiceKey, Table]) -> str:
        return maglev.fingerprint(of[key]) if key in of else ""

    states = [TableState(key, mark(key, found), mark(key, wanted)) for key in sorted(found.keys() | wanted.keys())]
    return [replace(state, found="") if str(state.service) in shared else state for state in states]


def tables(rows: Iterable[Row]) -> dict[ServiceKey, Table]:
    """The table of each service with scheduler mh, in the order that the rows' DestinationOrder says."""
    services: dict[ServiceKey, VirtualService] = {}
    orders: dict[ServiceKey, tuple[str, ...]] = {}
    destinations: defaultdict[ServiceKey, dict[str, Destination]] = defaultdict(dict)
    for row in rows:
        if isinstance(row, VirtualService):
            services[row.service] = row
        elif isinstance(row, DestinationOrder):
            orders[row.service] = row.names
        elif isinstance(row, Destination):
            destinations[row.service][row.name] = row
    found = {}
    for key, service in services.items():
        here = destinations[key]
        servers = [_server(here[name]) for name in orders.get(key, ()) if name in here]
        if service.scheduler == SCHEDULER and len(servers) <= maglev.SLOTS:
            found[key] = maglev.build(servers, family(key), flags=service.flags)
    return found


def remembering(actual: Iterable[Row], wanted: Iterable[Row]) -> list[Row]:
    """The kernel's rows, with the table weight of those at 0 filled in as well as it can be known."""
    rows = list(actual)
    known = {row.key: row.table_weight for row in wanted if isinstance(row, Destination)}
    weights: defaultdict[ServiceKey, list[int]] = defaultdict(list)
    for row in rows:
        if isinstance(row, Destination):
            weights[row.service].append(row.weight)

    def filled(row: Row) -> Row:
        if not isinstance(row, Destination) or row.weight:
            return row
        return replace(row, table_weight=known.get(row.key) or usual(weights[row.service]))

    return [filled(row) for row in rows]


def without_slots(weights: Sequence[int]) -> int:
    """How many servers of these weights, oldest first, find no slot: the newest take all in their first turns. One 99
    among weights of 100 is enough of it from 83 servers on (see `maglev.turns`)."""
    taken = accumulate(reversed(maglev.turns(weights)), initial=0)
    return sum(before >= maglev.SLOTS for before in islice(taken, len(weights)))


def usual(weights: Iterable[int]) -> int:
    """The commonest of those above 0, else 1."""
    above = Counter(weight for weight in weights if weight)
    return above.most_common(1)[0][0] if above else 1


def family(key: ServiceKey) -> Family:
    return 6 if ":" in key.vip else 4


def _server(row: Destination) -> Server:
    return Server(row.address, row.real_port, row.weight, row.table_weight)


def _rows_of(rows: Iterable[Row], services: Collection[ServiceKey]) -> list[Row]:
    kinds = (VirtualService, Destination, DestinationOrder)
    return [row for row in rows if isinstance(row, kinds) and row.service in services]
