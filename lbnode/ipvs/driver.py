"""The IPVS driver: time-outs, virtual services, their destinations and the order of these, by netlink.

Ours are the services that are wanted and those that the ledger knows; every other one is reported in one line and left
alone. Destinations of our services that a row cannot express (another port than the service's without masquerading)
are reported and left alone as well.

How changes are carried out depends on whether clients' packets come (`Change.quiet`); `lbnode.ipvs.batches` and
`lbnode.ipvs.order` say how.
"""

import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from lbnode.drivers import Busy, Observed, Result
from lbnode.errors import LbnodeError, Missing
from lbnode.ipvs import batches, codec, live, removal, rows, steps, timeouts
from lbnode.ipvs.batches import Known
from lbnode.ipvs.ledger import Ledger
from lbnode.ipvs.memory import Memory
from lbnode.ipvs.messages import Request
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import Destination, DestinationOrder, IpvsTimeouts, Key, Row, ServiceKey, VirtualService


class _Wanted(NamedTuple):
    """The wanted rows, and what is asked of them in every pass: their services, what the destinations of each are
    called, and whether time-outs are among them."""

    rows: tuple[Row, ...]
    services: frozenset[ServiceKey]
    names: dict[ServiceKey, set[str]]
    timeouts: bool

    @classmethod
    def of(cls, rows: tuple[Row, ...]) -> "_Wanted":
        names: dict[ServiceKey, set[str]] = {}
        for row in rows:
            if isinstance(row, Destination):
                names.setdefault(row.service, set()).add(row.name)
            elif isinstance(row, VirtualService):
                names.setdefault(row.service, set())
        return cls(rows, frozenset(_services(rows)), names, any(isinstance(row, IpvsTimeouts) for row in rows))


class IpvsDriver:
    """A `lbnode.drivers.Driver`. Works in the network namespace of the calling thread.

    Raises Missing when the kernel has no IPVS and modprobe cannot give it one, NotPermitted without CAP_NET_ADMIN.
    """

    kinds: tuple[type[Row], ...] = (IpvsTimeouts, VirtualService, Destination, DestinationOrder)

    def __init__(self, paths: Paths) -> None:
        self._ledger = Ledger(paths.ledger)
        self._known = Known()
        self._ours: frozenset[ServiceKey] = frozenset()
        self._idle: set[Key] = set()
        self._wanted = _Wanted.of(())
        self._memory = Memory()

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """Also notes what the kernel does not tell (table weights), or `apply` needs to know."""
        if wanted is not self._wanted.rows:
            self._wanted = _Wanted.of(tuple(wanted))  # of a tuple that is the tuple itself
        self._ours = self._ledger.read() | self._wanted.services
        self._known = Known()
        self._idle = set()
        self._memory.begin()
        others: set[ServiceKey] = set()
        found: list[Row] = []
        foreign = [problem] if (problem := self._ledger.problem()) else []
        connections: dict[Key, int] = {}
        with _open() as link:
            if self._wanted.timeouts:
                found.append(timeouts.decode(link.ask(timeouts.QUERY)))
            for service in self._memory.services(link.dump(Request(codec.Command.GET_SERVICE))):
                dump = link.dump(codec.destinations_query(service))
                key = rows.key_of(service)
                if key is None or key not in self._ours:
                    foreign.append(rows.foreign_service(service, len(dump)))
                    continue
                table = self._memory.table(key, service, self._memory.destinations(dump))
                self._known.saw(table.rows[:1], len(dump))
                found += table.rows
                foreign += table.foreign
                names = self._wanted.names.get(key)
                if names is None:
                    others.add(key)
                elif not table.names <= names:
                    connections |= self._unwanted(key, table.records, dump, names)
        return Observed(tuple(found), tuple(foreign), self._busy(connections, others))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """All of it in as few batches as its orders allow: an order is mended from the rows that then stand."""
        made = [change.new for change in changes if change.new is not None]
        self._known.wants(self._wanted.rows)
        self._known.wants(made)
        results: list[Result] = []
        with _open() as link:
            self._ledger.add(_services(made))
            for kind, grouped in groupby(changes, key=_kind):
                run = list(grouped)
                if kind == "order":
                    results += self._reorder(link, run)
                elif kind == "delete":
                    results += self._delete(link, run)
                else:
                    results += batches.write(link, run, self._known)
        done = [result.change.row for result in results if result.change.new is None and not result.error]
        self._ledger.remove(row.service for row in done if isinstance(row, VirtualService))
        return results

    def renew(self, addresses: Collection[str]) -> None:
        """Makes the destinations of ours at these addresses forget the routes they keep, by setting each to what it is
        (ip_vs_ctl.c, __ip_vs_update_dest). Raises LbnodeError. To be called after `observe`."""
        with _open() as link:
            groups = []
            for payload in link.dump(Request(codec.Command.GET_SERVICE)):
                service = codec.decode_service(payload)
                if rows.key_of(service) in self._ours:
                    records = [item for item in _destinations(link, service) if item.address in addresses]
                    command = codec.Command.SET_DEST
                    groups.append([codec.destination_request(command, service, item) for item in records])
            link.exchange(groups)

    def _unwanted(
        self, key: ServiceKey, records: Sequence[codec.Destination], dump: Sequence[bytes], names: Collection[str]
    ) -> dict[Key, int]:
        """The connections of each destination of ours that is not in the wanted `names`; notes those that have none,
        and get none."""
        found: dict[Key, int] = {}
        for record, payload in zip(records, dump, strict=True):
            if rows.name_of(key, record) not in names and rows.is_ours(key, record):
                row = rows.destination(key, 0, record)
                found[row.key] = codec.decode_connections(payload)
                if not record.weight and not found[row.key]:
                    self._idle.add(row.key)
        return found

    def _busy(self, connections: dict[Key, int], others: Collection[ServiceKey]) -> dict[Key, Busy]:
        """`others` are services of ours that nobody spoke of this time."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        since = self._ledger.unwanted(connections, now, others)
        return {key: Busy(count, now - since[key]) for key, count in connections.items() if count}

    def _reorder(self, link: GenericNetlink, changes: list[Change]) -> list[Result]:
        """Mends the orders. An order whose rows are not all there waits."""
        found: dict[ServiceKey, dict[str, codec.Destination]] = {}
        used: set[ServiceKey] = set()
        for change in changes:
            if isinstance(change.new, DestinationOrder):
                key = change.new.service
                oldest_first = link.dump(codec.destinations_query(rows.record_of_key(key)))[::-1]
                records = map(codec.decode_destination, oldest_first)
                found[key] = {rows.name_of(key, item): item for item in records if rows.is_ours(key, item)}
                if any(map(codec.decode_connections, oldest_first)):
                    used.add(key)
        return batches.reorder(link, changes, found, self._known, used)

    def _delete(self, link: GenericNetlink, changes: list[Change]) -> list[Result]:
        """Removes destinations and services, and the connections of those that have any."""
        rows_gone = [change.row for change in changes if isinstance(change.row, Destination)]
        busy = [row for row in rows_gone if row.key not in self._idle]
        if not busy:
            return batches.write(link, changes, self._known)
        results: list[Result] = []
        try:
            with removal.flushing(lambda deadline: live.has_entries(busy, deadline)):
                results = batches.write(link, changes, self._known)
        except LbnodeError as error:
            return results or [Result(change, f"{steps.cannot(change)}: {error}") for change in changes]
        return results


def _kind(change: Change) -> str:
    if isinstance(change.row, DestinationOrder):
        return "order"
    return "delete" if change.new is None else "write"


def _services(of: Iterable[Row]) -> set[ServiceKey]:
    return {row.service for row in of if isinstance(row, VirtualService | Destination | DestinationOrder)}


def _destinations(link: GenericNetlink, service: codec.Service) -> list[codec.Destination]:
    """Newest first, as the kernel lists them."""
    return [codec.decode_destination(payload) for payload in link.dump(codec.destinations_query(service))]


def _open() -> GenericNetlink:
    """A socket to IPVS; loads the modules when, and only when, the kernel does not know it yet."""
    try:
        return GenericNetlink(codec.FAMILY)
    except Missing:
        try:
            subprocess.run(["modprobe", "-a", "ip_vs", "ip_vs_mh"], capture_output=True, check=True)
            return GenericNetlink(codec.FAMILY)
        except (OSError, subprocess.CalledProcessError, Missing) as error:
            raise Missing("cannot use IPVS: kernel module ip_vs is not loaded: modprobe ip_vs") from error
