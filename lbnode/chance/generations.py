"""The Maglev tables that a service has had on the L4 nodes: those in use, and those of before. PURE.

A flow goes where the table said that was in use when it began. So a real server that gets a packet of a flow it does
not know looks into the tables of before, newest first. What an L4 node uses now is what its kernel has; what it used is
remembered by itself and by every real server, each on its disk, so that one that has just been installed can ask.

Most tables differ from another only in who takes no new flows: who holds which slot is the same. So a generation is a
*structure* and the places of those servers that were *down*: drained, failed, or out by their checks. A rolling restart
of 200 servers has 200 generations, one structure, and at most one further choice for each flow.

    {"structures": {"72c79c86d424": [4, 4093, ["mh-fallback", "mh-port"], [["192.0.2.193", 80, 100], ...]]},
     "services": {"198.51.100.1:80/tcp": [["72c79c86d424", [3], 1764150000.0, true], ...]}, "failed": ["192.0.2.194"]}
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lbnode import maglev
from lbnode.maglev import Server, Table

LIMIT = 1024
"""So many of a service are kept, the newest: the kernel's part has room for no more (`lbnode.chance.layout`)."""


class Generation(NamedTuple):
    """One table. `structure` has every server at its table weight; `down` are the indices of those at weight 0."""

    structure: Table
    down: tuple[int, ...] = ()

    @property
    def table(self) -> Table:
        """As `lbnode.maglev` knows it."""
        servers = (
            server._replace(weight=0) if index in self.down else server
            for index, server in enumerate(self.structure.servers)
        )
        return Table(tuple(servers), self.structure.version, self.structure.flags, self.structure.size)


class Record(NamedTuple):
    """When a generation was used. `at`: since when it is, or was last, seconds since 1970."""

    generation: Generation
    at: float
    in_use: bool


Records = Mapping[str, tuple[Record, ...]]
"""By virtual service, as `str(ServiceKey)`; those in use first, then the newest."""


@dataclass(frozen=True)
class Past:
    """All that is remembered. `failed`: addresses of real servers whose flows are being ended on every L4 node."""

    records: Records = field(default_factory=dict)
    failed: frozenset[str] = frozenset()

    def generations(self, service: str) -> tuple[Generation, ...]:
        return tuple(record.generation for record in self.records.get(service, ()))


def generation_of(table: Table) -> Generation:
    """A table taken apart. Servers that never had a weight hold no slots and are left out."""
    holding = [server for server in table.servers if server.table_weight]
    structure = Table(
        tuple(server._replace(weight=server.table_weight) for server in holding), table.version, table.flags, table.size
    )
    return Generation(structure, tuple(index for index, server in enumerate(holding) if not server.weight))


def now(tables: Mapping[str, Table], failed: Iterable[str], at: float) -> Past:
    """What one L4 node uses, and nothing of before."""
    records = {service: (Record(generation_of(table), at, True),) for service, table in tables.items()}
    return Past(records, frozenset(failed))


def merged(past: Past, told: Iterable[Past], at: float, keep_s: float) -> Past:
    """What is remembered after L4 nodes have told what they use and remember. Without any the past stays as it is.

    What has been out of use for `keep_s` is forgotten. A real server has failed when all of them say so: one of them
    may be cut off itself.
    """
    told = tuple(told)
    if not told:
        return past
    services = dict.fromkeys([*past.records, *(name for one in told for name in one.records)])
    found: dict[str, tuple[Record, ...]] = {}
    for service in services:
        heard = [record for one in told for record in one.records.get(service, ())]
        mine = {record.generation: record for record in past.records.get(service, ())}
        known = dict.fromkeys([*mine, *(record.generation for record in heard)])
        by_generation: dict[Generation, list[Record]] = {}
        for record in heard:
            by_generation.setdefault(record.generation, []).append(record)
        records = [_record(one, mine.get(one), by_generation.get(one, []), at) for one in known]
        kept = [record for record in records if record.in_use or at - record.at < keep_s]
        if kept:
            found[service] = tuple(sorted(kept, key=_order))[:LIMIT]
    return Past(found, frozenset.intersection(*(one.failed for one in told)))


def _record(generation: Generation, mine: Record | None, heard: list[Record], at: float) -> Record:
    """What of one generation is to be remembered. The time changes only when its use begins or ends."""
    since = [record.at for record in heard if record.in_use]
    if since:
        return mine if mine is not None and mine.in_use else Record(generation, min(since), True)
    if mine is None:
        return Record(generation, max(record.at for record in heard), False)
    return Record(generation, at, False) if mine.in_use else mine


def _order(record: Record) -> tuple[bool, float, tuple[int, ...], tuple[Server, ...]]:
    return (not record.in_use, -record.at, record.generation.down, record.generation.structure.servers)


def as_json(past: Past) -> dict[str, Any]:
    """The form above; structures stand once."""
    names: dict[Table, str] = {}
    for _, record in _all(past):
        structure = record.generation.structure
        if structure not in names:
            names[structure] = maglev.fingerprint(structure)
    structures = {
        name: [
            table.version,
            table.size,
            list(table.flags),
            [[server.address, server.port, server.table_weight] for server in table.servers],
        ]
        for table, name in names.items()
    }
    services: dict[str, list[object]] = {}
    for service, record in _all(past):
        line = [names[record.generation.structure], list(record.generation.down), record.at, record.in_use]
        services.setdefault(service, []).append(line)
    return {"structures": structures, "services": services, "failed": sorted(past.failed)}


def from_json(told: Mapping[str, Any]) -> Past:
    """Raises KeyError, TypeError or ValueError for what `as_json` did not make."""
    structures = {}
    for name, (version, size, flags, servers) in told["structures"].items():
        rows = [Server(str(address), int(port), int(weight), int(weight)) for address, port, weight in servers]
        structures[name] = maglev.build(rows, 6 if version == 6 else 4, int(size), [str(flag) for flag in flags])
    records = {
        str(service): tuple(
            Record(Generation(structures[name], tuple(map(int, down))), float(at), bool(in_use))
            for name, down, at, in_use in lines
        )
        for service, lines in told["services"].items()
    }
    return Past(records, frozenset(map(str, told["failed"])))


def _all(past: Past) -> Iterator[tuple[str, Record]]:
    return ((service, record) for service, records in past.records.items() for record in records)
