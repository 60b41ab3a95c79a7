"""The classifier, what it knows, and where it runs, as rows.

Ours is what is pinned in our folder of the BPF file system, and the filters of our name in our place. A table is read
back whole and compared by its digest. It is written beside the one that is in use and then put in its place in one
step, so that no packet meets half of it.
"""

import errno
import hashlib
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple, cast

from lbnode.chance import bpf, layout, program
from lbnode.chance.elf import Definition
from lbnode.chance.program import Opened
from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError, NotPermitted, NotReady
from lbnode.net import filters
from lbnode.plan import Change
from lbnode.resources import (
    ChanceEndpoint,
    ChanceFilter,
    ChanceOwn,
    ChancePeer,
    ChanceTable,
    Classifier,
    Row,
    ServiceKey,
)

ROLES = {"l4": 1, "real-server": 2}
WITHOUT_PORT = 0x10000
VERBS = {"create": "make", "update": "change", "delete": "remove"}


class Entry(NamedTuple):
    """One row of a map."""

    map: str
    key: bytes
    value: bytes


class ChanceDriver:
    """Works in the network namespace of the calling thread; `folder` is where everything is pinned."""

    kinds: tuple[type[Row], ...] = (Classifier, ChanceTable, ChanceEndpoint, ChancePeer, ChanceOwn, ChanceFilter)

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """Everything of ours. Where nothing is wanted and nothing may be read there is nothing. Raises LbnodeError."""
        if not wanted and not self._folder.exists():
            return Observed(tuple(_left_behind()))
        try:
            with program.opened(self._folder) as found:
                digest, descriptor = program.program_of(self._folder, found)
                rows: list[Row] = [Classifier(digest)] if digest else []
                if descriptor:
                    rows += [*self._tables(found), *_entries(found)]
                running, foreign = _filters(bpf.info_of_program(descriptor).id if descriptor else 0, digest)
        except OSError as error:
            raise _explained("cannot read the classifier", error) from error
        return Observed((*rows, *running), tuple(foreign))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        return [Result(change, self._carry_out(change)) for change in changes]

    def _carry_out(self, change: Change) -> str:
        what = f"cannot {VERBS[change.action]} {change.row.KIND} {change.row.title}"
        try:
            self._change(change)
        except OSError as error:
            return str(_explained(what, error))
        except LbnodeError as error:
            return f"{what}: {error}"
        return ""

    def _change(self, change: Change) -> None:
        row, gone = change.row, change.new is None
        if isinstance(row, Classifier):
            (program.remove if gone else program.install)(self._folder)
        elif isinstance(row, ChanceFilter):
            self._filter(row.device, gone)
        else:
            with program.opened(self._folder) as found:
                if not program.whole(found):
                    raise NotReady("the classifier is not there")
                if isinstance(row, ChanceTable):
                    self._write_table(found, row, gone)
                else:
                    _write(found, entry_of(row), gone)

    def _filter(self, name: str, gone: bool) -> None:
        device = filters.devices().get(name)
        if device is None:
            if gone:
                return
            raise NotReady("there is no such device")
        if gone:
            filters.detach(device)
            return
        if any(one.foreign for one in filters.dump() if one.device == device):
            raise NotReady(f"another filter stands there with priority {filters.PRIORITY}")
        with program.opened(self._folder) as found:
            _, descriptor = program.program_of(self._folder, found)
            if not descriptor:
                raise NotReady("the classifier is not there")
            filters.attach(device, descriptor)

    def _tables(self, found: Opened) -> Iterator[ChanceTable]:
        groups = found.maps["groups"]
        for key in bpf.keys(groups, 4):
            held = bpf.lookup(groups, key, 4)
            if held is None:
                continue
            number = int.from_bytes(key, "little")
            descriptor = found.pinned(f"table-{number}")
            digest = ""
            if descriptor is not None and bpf.info_of_map(descriptor).id == int.from_bytes(held, "little"):
                digest = digest_of(bpf.read_array(descriptor, layout.ROWS, layout.ROW))
            yield ChanceTable(number, digest)

    def _write_table(self, found: Opened, row: ChanceTable, gone: bool) -> None:
        key, path = row.number.to_bytes(4, "little"), self._folder / f"table-{row.number}"
        if gone:
            bpf.delete(found.maps["groups"], key)
            path.unlink(missing_ok=True)
            return
        definition = program.built()[0].maps[program.TEMPLATE]
        table = found.keep(bpf.create(program.TEMPLATE, definition))
        bpf.write_array(table, row.content, layout.ROW)
        fresh = path.with_name(f"new-{row.number}")
        fresh.unlink(missing_ok=True)
        bpf.pin(fresh, table)
        bpf.update(found.maps["groups"], key, table.to_bytes(4, "little"))
        fresh.rename(path)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def entry_of(row: Row) -> Entry:
    """What stands in the kernel for an endpoint, a peer or an address of our own."""
    if isinstance(row, ChanceEndpoint):
        key = layout.mapped(row.service.vip) + row.service.port.to_bytes(2, "big") + bytes(2)
        return Entry("endpoints", key, (row.table | (0 if row.by_port else WITHOUT_PORT)).to_bytes(4, "little"))
    if isinstance(row, ChancePeer):
        return Entry("peers", layout.mapped(row.address), ROLES[row.what].to_bytes(4, "little"))
    own = cast("ChanceOwn", row)
    return Entry("own", (0 if own.version == 4 else 1).to_bytes(4, "little"), layout.mapped(own.address))


def row_of(entry: Entry) -> Row | None:
    """The other way round; None for an address of our own that is not set."""
    if entry.map == "endpoints":
        value = int.from_bytes(entry.value, "little")
        service = ServiceKey(_address(entry.key[:16]), "tcp", int.from_bytes(entry.key[16:18], "big"))
        return ChanceEndpoint(service, value & (WITHOUT_PORT - 1), not value & WITHOUT_PORT)
    if entry.map == "peers":
        number = int.from_bytes(entry.value, "little")
        return ChancePeer(_address(entry.key), "l4" if number == ROLES["l4"] else "real-server")
    return ChanceOwn(6 if entry.key[0] else 4, _address(entry.value)) if any(entry.value) else None


def _address(packed: bytes) -> str:
    found = ip_address(packed)
    return str(found.ipv4_mapped or found) if isinstance(found, IPv6Address) else str(found)


def _entries(found: Opened) -> Iterator[Row]:
    sizes: dict[str, Definition] = {name: program.built()[0].maps[name] for name in ("endpoints", "peers", "own")}
    for name, definition in sizes.items():
        for key in bpf.keys(found.maps[name], definition.key_size):
            value = bpf.lookup(found.maps[name], key, definition.value_size)
            row = None if value is None else row_of(Entry(name, key, value))
            if row is not None:
                yield row


def _write(found: Opened, entry: Entry, gone: bool) -> None:
    if gone and entry.map != "own":
        bpf.delete(found.maps[entry.map], entry.key)
    else:
        bpf.update(found.maps[entry.map], entry.key, bytes(16) if gone else entry.value)


def _filters(number: int, digest: str) -> tuple[list[ChanceFilter], list[str]]:
    """Ours, with the digest of the program if it is the pinned one; and what stands in their way."""
    ours, foreign = [], []
    for one in filters.dump():
        if one.foreign:
            foreign.append(f"filter on {one.device.name} ingress, priority {filters.PRIORITY}")
        else:
            ours.append(ChanceFilter(one.device.name, digest if one.program == number else "another"))
    return ours, foreign


def _left_behind() -> list[Row]:
    """Filters of ours although nothing is pinned; none where they cannot be read."""
    try:
        return list(_filters(0, "")[0])
    except (OSError, NotReady):
        return []


def _explained(what: str, error: OSError) -> LbnodeError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"{what}: {error.strerror} (that needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)")
    return NotReady(f"{what}: {error.strerror or error}")
