"""The IPVS driver: time-outs, virtual services, their destinations and the order of these, by netlink.

Ours are the services that are wanted and those that the ledger knows; every other one, services by firewall mark
included, is reported in one line and left alone. Destinations of our services that a row cannot express (another port
than the service's) are reported and left alone as well.

The scheduler stays what it is while destinations are added. Adding under rr and switching to mh at the end builds the
table once instead of once per row, but a switch waits for an RCU grace period (10 ms and more on real machines) in
which new flows are refused: it gains nothing below some 100 rows.
"""

import errno
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from lbnode.drivers import Observed, Result
from lbnode.errors import Missing
from lbnode.ipvs import codec, rows, steps, timeouts
from lbnode.ipvs.ledger import Ledger
from lbnode.ipvs.netlink import GenericNetlink, Request
from lbnode.maglev import SLOTS
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import Destination, DestinationOrder, IpvsTimeouts, Row, ServiceKey, VirtualService


class IpvsDriver:
    """A `lbnode.drivers.Driver`. Works in the network namespace of the calling thread.

    Raises Missing when the kernel has no IPVS and modprobe cannot give it one, NotPermitted without CAP_NET_ADMIN.
    """

    kinds: tuple[type[Row], ...] = (IpvsTimeouts, VirtualService, Destination, DestinationOrder)

    def __init__(self, paths: Paths) -> None:
        self._ledger = Ledger(paths.ledger)
        self._table_weights: dict[ServiceKey, dict[str, int]] = {}
        self._counts: Counter[ServiceKey] = Counter()
        self._ours: set[ServiceKey] = set()

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """Also notes the wanted table weights, which the kernel does not tell, for `apply`."""
        self._table_weights = {}
        self._note_table_weights(wanted)
        self._counts = Counter()
        ours = self._ours = _services(wanted) | self._ledger.read()
        found: list[Row] = []
        foreign: list[str] = []
        with _open() as link:
            if any(isinstance(row, IpvsTimeouts) for row in wanted):
                found.append(timeouts.decode(link.ask(timeouts.QUERY)))
            for payload in link.dump(Request(codec.Command.GET_SERVICE)):
                service = codec.decode_service(payload)
                records = _destinations(link, service)
                key = rows.key_of(service)
                if key is None or key not in ours:
                    foreign.append(rows.foreign_service(service, len(records)))
                    continue
                self._counts[key] = len(records)
                found += rows.rows_of(key, service, records)
                foreign += [rows.foreign_destination(key, item) for item in records if not rows.is_ours(key, item)]
        return Observed(tuple(found), tuple(foreign))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """All of it in as few batches as its orders allow: an order is mended from the rows that then stand."""
        made = [change.new for change in changes if change.new is not None]
        self._note_table_weights(made)
        results: list[Result] = []
        with _open() as link:
            self._ledger.add(_services(made))
            for is_order, grouped in groupby(changes, key=lambda change: isinstance(change.row, DestinationOrder)):
                run = list(grouped)
                results += self._reorder(link, run) if is_order else self._write(link, run)
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

    def _write(self, link: GenericNetlink, changes: list[Change]) -> list[Result]:
        """Services and destinations. What exists already when it should be made is set instead."""
        errors = self._too_many(changes)
        outcomes = link.exchange(
            [[] if why else steps.requests(change) for change, why in zip(changes, errors, strict=True)]
        )
        late = [
            index
            for index, codes in enumerate(outcomes)
            if changes[index].old is None and codes and codes[0] == errno.EEXIST
        ]
        for index, codes in zip(late, link.exchange([steps.instead(changes[index]) for index in late]), strict=True):
            outcomes[index] = codes
        return [
            Result(change, why or steps.error(change, _first(codes)))
            for change, why, codes in zip(changes, errors, outcomes, strict=True)
        ]

    def _too_many(self, changes: Sequence[Change]) -> list[str]:
        """For each change, why it is refused: creates that would give a service more destinations than slots."""
        creates = [change.new for change in changes if change.old is None]
        totals = self._counts + Counter(row.service for row in creates if isinstance(row, Destination))
        errors = [""] * len(changes)
        for index, change in enumerate(changes):
            if change.old is None and isinstance(change.new, Destination):
                total = totals[change.new.service]
                if total > SLOTS:
                    why = f"the service would have {total} destinations, and a Maglev table has {SLOTS} slots"
                    errors[index] = f"{steps.cannot(change)}: {why}"
        return errors

    def _reorder(self, link: GenericNetlink, changes: list[Change]) -> list[Result]:
        """Mends the orders live, by the recipe in `lbnode.ipvs.steps`. An order whose rows are not all there waits."""
        groups: list[list[Request]] = []
        errors = [""] * len(changes)
        owners: list[int] = []
        for index, change in enumerate(changes):
            if not isinstance(change.new, DestinationOrder):
                continue
            key, canonical = change.new.service, change.new.names
            newest_first = _destinations(link, rows.record_of_key(key))
            records = {item.address: item for item in reversed(newest_first) if rows.is_ours(key, item)}
            if missing := [address for address in canonical if address not in records]:
                errors[index] = f"{steps.cannot(change)}: {', '.join(missing)} is not there"
                continue
            moves = steps.moves(key, records, canonical, self._table_weights.get(key, {}))
            groups += moves
            owners += [index] * len(moves)
        for index, codes in zip(owners, link.exchange(groups), strict=True):
            # Only what puts a row back counts: had it gone already, so much the better.
            errors[index] = errors[index] or steps.error(changes[index], _first(codes[1:]))
        return [Result(change, why) for change, why in zip(changes, errors, strict=True)]

    def _note_table_weights(self, wanted: Iterable[Row]) -> None:
        for row in wanted:
            if isinstance(row, Destination):
                self._table_weights.setdefault(row.service, {})[row.address] = row.table_weight


def _services(of: Iterable[Row]) -> set[ServiceKey]:
    return {row.service for row in of if isinstance(row, VirtualService | Destination | DestinationOrder)}


def _first(codes: Iterable[int]) -> int:
    """The first errno that is one."""
    return next(filter(None, codes), 0)


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
