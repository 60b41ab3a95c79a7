"""What was read of the kernel's table is remembered, so that reading it again costs little. PURE.

A dump repeats itself: the same real servers stand under many services, and from pass to pass most rows differ in their
counters alone. So what was decoded is kept by the bytes that it was decoded from, without the counters, and the rows of
a service by its records. What nobody has asked for during a whole pass is forgotten in the next.

The kernel's order of attributes (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_fill_service and ip_vs_genl_fill_dest) puts
the counters behind all settings but one, the family of a destination's address. It is looked up, not assumed.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from lbnode.errors import LbnodeError
from lbnode.ipvs import codec, rows
from lbnode.ipvs.messages import align
from lbnode.resources import Destination, Row, ServiceKey

_HEAD = struct.Struct("=HH")
"""Length and number of an attribute: of the one that all others stand in, and of each of these."""
_SERVICE_COUNTERS = frozenset({10, 12})
"""IPVS_SVC_ATTR_STATS, _STATS64: attributes that change without anybody's doing."""
_DESTINATION_COUNTERS = frozenset({7, 8, 9, 10, 12})
"""IPVS_DEST_ATTR_ACTIVE_CONNS, _INACT_CONNS, _PERSIST_CONNS, _STATS, _STATS64."""
_ADDRESS_FAMILY = 11
"""IPVS_DEST_ATTR_ADDR_FAMILY."""


T = TypeVar("T")


class Table(NamedTuple):
    """One service of ours: the kernel's records, newest first; its rows; a line for each record that no row can say."""

    service: codec.Service
    records: tuple[codec.Destination, ...]
    rows: tuple[Row, ...]
    names: frozenset[str]
    """Of the destinations among the rows."""
    foreign: tuple[str, ...]


class _Cut(NamedTuple):
    """Where the settings end in the bytes of an object of one size, with the head of the first counter; and where the
    family stands. Nothing of it is a setting when `end` is 0."""

    end: int = 0
    family: int = 0
    family_end: int = 0

    def settings(self, payload: bytes) -> bytes:
        return payload[: self.end] + payload[self.family : self.family_end]


_NO_CUT = _Cut()


class _Decoded(Generic[T]):
    """What was decoded of one kind of object, by the bytes of its settings: in this pass, and in the one before."""

    def __init__(self, decode: Callable[[bytes], T], counters: frozenset[int]) -> None:
        self._decode = decode
        self._counters = counters
        self._known: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}
        self._cuts: dict[int, _Cut] = {}

    def begin(self) -> None:
        self._old, self._known = self._known, {}

    def each(self, payloads: Sequence[bytes]) -> tuple[T, ...]:
        """The objects, in their order."""
        known, cuts = self._known, self._cuts
        found = []
        size, cut = -1, _NO_CUT
        for payload in payloads:
            if len(payload) != size:
                size = len(payload)
                cut = cuts.get(size, _NO_CUT)
            item = known.get(payload[: cut.end] + payload[cut.family : cut.family_end])
            if item is None:
                item = self._seldom(payload, cut)
                cut = cuts.get(size, _NO_CUT)
            found.append(item)
        return tuple(found)

    def _seldom(self, payload: bytes, cut: _Cut) -> T:
        """What this pass has not seen yet."""
        settings = cut.settings(payload)
        found = self._old.get(settings)
        if found is None:
            found = self._decode(payload)
            self._cuts[len(payload)] = cut = _cut(payload, self._counters)
            settings = cut.settings(payload)
        if settings:
            self._known[settings] = found
        return found


class Memory:
    """Of one driver. What it answers is what `codec` and `rows` would, and the very same objects as long as nothing has
    changed."""

    def __init__(self) -> None:
        self._services = _Decoded(codec.decode_service, _SERVICE_COUNTERS)
        self._records = _Decoded(codec.decode_destination, _DESTINATION_COUNTERS)
        self._tables: dict[ServiceKey, Table] = {}
        self._old_tables = self._tables

    def begin(self) -> None:
        """A new pass begins."""
        self._services.begin()
        self._records.begin()
        self._old_tables, self._tables = self._tables, {}

    def services(self, payloads: Sequence[bytes]) -> tuple[codec.Service, ...]:
        """As codec.decode_service of each."""
        return self._services.each(payloads)

    def destinations(self, payloads: Sequence[bytes]) -> tuple[codec.Destination, ...]:
        """As codec.decode_destination of each."""
        return self._records.each(payloads)

    def table(self, key: ServiceKey, service: codec.Service, records: tuple[codec.Destination, ...]) -> Table:
        """A service of ours as rows. Raises LbnodeError when a destination stands in it twice."""
        found = self._old_tables.get(key)
        if found is None or found.service != service or found.records != records:
            if len({(item.address, item.port) for item in records}) < len(records):
                raise LbnodeError(f"cannot read {key}: it changes while it is read, a destination came twice")
            ours = tuple(rows.rows_of(key, service, records))
            names = frozenset(row.name for row in ours if isinstance(row, Destination))
            strange = tuple(rows.foreign_destination(key, item) for item in records if not rows.is_ours(key, item))
            found = Table(service, records, ours, names, strange)
        self._tables[key] = found
        return found


def _cut(payload: bytes, counters: frozenset[int]) -> _Cut:
    """Where to cut an object that was decoded well. It is not cut, and so not remembered, when it is not one attribute
    with all others in it, or when a setting other than the family stands behind the first counter."""
    end = family = family_end = 0
    at = _HEAD.size
    if _HEAD.unpack_from(payload)[0] != len(payload):
        return _Cut()
    while at + _HEAD.size <= len(payload):
        length, kind = _HEAD.unpack_from(payload, at)
        number = kind & 0x3FFF
        if number in counters:
            end = end or at + _HEAD.size
        elif end and number == _ADDRESS_FAMILY:
            family, family_end = at, at + length
        elif end:
            return _Cut()
        at += align(max(length, _HEAD.size))
    return _Cut(end, family, family_end)
