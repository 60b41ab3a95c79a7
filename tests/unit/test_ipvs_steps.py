"""The messages a change becomes, tried on a model of the kernel's list (added at the head, last weight kept)."""

import errno
import re
import socket
import sys
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import LbnodeError
from lbnode.ipvs import codec, order, rows, steps
from lbnode.ipvs.codec import Command
from lbnode.ipvs.messages import Request, attributes
from lbnode.plan import Change
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

KEY = ServiceKey("198.51.100.1", "tcp", 80)
ADDRESSES = [f"192.0.2.{number}" for number in range(1, 9)]


@dataclass
class Kernel:
    """ip_vs_ctl.c as far as one service's list goes: address -> (weight, last weight), newest first."""

    newest_first: dict[str, tuple[int, int]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def run(self, requests: list[Request]) -> None:
        for command, payload in requests:
            if command == Command.DEL_DEST:
                address = _address(payload)
                del self.newest_first[address]
            else:
                record = codec.decode_destination(payload)
                address, weight = record.address, record.weight
                if command == Command.NEW_DEST:
                    assert address not in self.newest_first
                    self.newest_first = {address: (weight, weight), **self.newest_first}
                else:
                    self.newest_first[address] = (weight, weight or self.newest_first[address][1])
            self.log.append(f"{Command(command).name} {address}")

    @property
    def oldest_first(self) -> list[str]:
        return list(self.newest_first)[::-1]


def _address(payload: bytes) -> str:
    """Of a delete, which has no more than the key (attribute 1 of the destination, attribute 2)."""
    return socket.inet_ntop(socket.AF_INET, attributes(attributes(payload)[2])[1][:4])


def row(address: str, weight: int = 100, table_weight: int = 100) -> Destination:
    return Destination(KEY, address, weight, table_weight)


@given(
    st.permutations(ADDRESSES),
    st.permutations(ADDRESSES).flatmap(lambda names: st.integers(0, 8).map(lambda count: names[:count])),
    st.sets(st.sampled_from(ADDRESSES)),
    st.booleans(),
)
def test_any_order_becomes_canonical(
    standing: list[str], canonical: list[str], down: set[str], all_of_them: bool
) -> None:
    """Weights and slots stay; rows outside the order stay; each row is out for no longer than one message. So it is
    when all of them are moved, as while nothing is announced."""
    kernel = Kernel()
    for address in standing:
        kernel.run(steps.requests(Change(None, row(address, 0 if address in down else 100, 100))))
    before = dict(kernel.newest_first)
    records = {
        address: rows.record_of_destination(row(address), kernel.newest_first[address][0])
        for address in kernel.oldest_first
    }
    moving = canonical if all_of_them else order.to_move(list(records), canonical)
    for group in steps.moves(KEY, records, moving, dict.fromkeys(ADDRESSES, 100)):
        kernel.run(group)
        assert kernel.newest_first.keys() == before.keys()
    assert [address for address in kernel.oldest_first if address in canonical] == canonical
    assert kernel.newest_first == before


def test_one_that_leaves_is_moved_with_the_slots_of_the_others() -> None:
    """No file says its weight any more."""
    kernel = Kernel()
    for address, weight in zip(ADDRESSES[:3], (100, 0, 100), strict=True):
        kernel.run(steps.requests(Change(None, row(address, weight, 100))))
    records = {
        address: rows.record_of_destination(
            row(address, kernel.newest_first[address][0]), kernel.newest_first[address][0]
        )
        for address in kernel.oldest_first
    }
    for group in steps.moves(KEY, records, [ADDRESSES[1]], {ADDRESSES[0]: 100, ADDRESSES[2]: 100}):
        kernel.run(group)
    assert kernel.newest_first[ADDRESSES[1]] == (0, 100)


def test_a_row_that_is_down_is_added_with_its_slots() -> None:
    kernel = Kernel()
    kernel.run(steps.requests(Change(None, row("192.0.2.1", 0, 100))))
    assert kernel.newest_first == {"192.0.2.1": (0, 100)}
    assert kernel.log == ["NEW_DEST 192.0.2.1", "SET_DEST 192.0.2.1"]


def test_a_share_is_added_at_once() -> None:
    kernel = Kernel()
    kernel.run(steps.requests(Change(None, row("192.0.2.1", 50, 100))))
    assert kernel.newest_first == {"192.0.2.1": (50, 50)}
    assert kernel.log == ["NEW_DEST 192.0.2.1"]


@pytest.mark.parametrize(
    ("old", "new", "then"),
    [
        ((100, 100), (0, 100), (0, 100)),
        ((100, 100), (30, 100), (30, 30)),
        ((30, 100), (0, 100), (0, 100)),
        ((30, 30), (0, 30), (0, 30)),
    ],
)
def test_a_row_that_goes_down_holds_its_table_weight(old: tuple[int, int], new: tuple[int, int], then: object) -> None:
    kernel = Kernel({"192.0.2.1": (old[0], old[0])})
    kernel.run(steps.requests(Change(row("192.0.2.1", *old), row("192.0.2.1", *new))))
    assert kernel.newest_first["192.0.2.1"] == then


def test_a_create_that_comes_late_becomes_a_set() -> None:
    kernel = Kernel({"192.0.2.1": (7, 7)})
    kernel.run(steps.instead(Change(None, row("192.0.2.1", 0, 100))))
    assert kernel.newest_first == {"192.0.2.1": (0, 100)}


def test_service_flags_by_name() -> None:
    record = rows.record_of_service(VirtualService(KEY))
    assert (record.scheduler, record.flags) == ("mh", 0x18)
    sticky = rows.record_of_service(VirtualService(KEY, "sh", ("persistent", "sh-port"), 300, 24))
    assert (sticky.flags, sticky.timeout, sticky.prefix) == (0x11, 300, 24)
    with pytest.raises(LbnodeError, match=re.escape("cannot use flag 'mh-port' with scheduler rr")):
        rows.record_of_service(VirtualService(KEY, "rr", ("mh-port",)))


@given(st.integers(0, 0xFFFFFFFF), st.sampled_from(["mh", "sh", "rr"]))
def test_every_flag_shows(flags: int, scheduler: str) -> None:
    flags &= ~codec.HASHED
    service = rows.record_of_key(KEY)._replace(scheduler=scheduler, flags=flags)
    found = rows.rows_of(KEY, service, [])[0]
    assert isinstance(found, VirtualService)
    assert len(found.flags) == flags.bit_count()
    assert list(found.flags) == sorted(found.flags)


def test_errors_in_words() -> None:
    service, destination = Change(None, VirtualService(KEY, "nosuch", ())), Change(None, row("192.0.2.1"))
    assert steps.error(service, 0) == ""
    assert steps.error(service, errno.ENOENT) == (
        "cannot add virtual service 198.51.100.1:80/tcp: no such scheduler (ENOENT)"
    )
    assert steps.error(destination, errno.ESRCH) == (
        "cannot add destination 198.51.100.1:80/tcp -> 192.0.2.1: no such virtual service (ESRCH)"
    )
    gone = Change(row("192.0.2.1"), None)
    assert steps.error(gone, errno.ENOENT) == steps.error(gone, errno.ESRCH) == ""
    assert steps.error(gone, errno.ENOMEM) == (
        "cannot delete destination 198.51.100.1:80/tcp -> 192.0.2.1: Cannot allocate memory (ENOMEM)"
    )


def test_what_no_row_can_say_is_told_apart() -> None:
    ours = codec.Destination("192.0.2.1", 80)
    other_port, local = ours._replace(port=8080), codec.Destination("2001:db8::7", 80, codec.Forwarding.LOCAL)
    found = rows.rows_of(KEY, rows.record_of_key(KEY), [other_port, ours, local])
    addresses: list[Row] = [row("192.0.2.1", 1)]
    assert found[1:] == [*addresses, DestinationOrder(KEY, ("192.0.2.1",))]
    assert rows.foreign_destination(KEY, other_port) == (
        "198.51.100.1:80/tcp -> 192.0.2.1:8080 (not the service's port)"
    )
    assert rows.foreign_destination(KEY, local) == "198.51.100.1:80/tcp -> [2001:db8::7]:80 (forwarding method 1)"


def test_only_masquerading_has_a_port_of_its_own() -> None:
    mark = ServiceKey.of_mark(7, 6)
    for key, own, other in ((KEY, 80, 8080), (mark, 0, 80)):
        records = [codec.Destination(address, other, codec.Forwarding.MASQUERADE) for address in ("192.0.2.1", "::1")]
        records += [codec.Destination("192.0.2.1", own, codec.Forwarding.MASQUERADE), codec.Destination("::2", other)]
        *found, names = rows.rows_of(key, rows.record_of_key(key), records)[1:]
        assert [(row.port, row.name) for row in found] == [
            (0, "192.0.2.1"),
            (other, f"[::1]:{other}"),
            (other, f"192.0.2.1:{other}"),
        ]
        assert names == DestinationOrder(key, tuple(row.name for row in found))
        assert [rows.name_of(key, item) for item in records[2::-1]] == list(names.names)
        assert [rows.record_of_destination(row, row.weight) for row in found] == records[2::-1]


keys = st.sampled_from([KEY, KEY._replace(vip="2001:db8::1"), ServiceKey.of_mark(9, 4), ServiceKey.of_mark(9, 6)])
destinations = st.builds(
    Destination,
    keys,
    st.sampled_from(["192.0.2.1", "2001:db8::7"]),
    st.integers(0, 2**31 - 1),
    forwarding=st.sampled_from(["tunnel", "route", "masquerade"]),
    upper=st.integers(0, 2**31 - 1),
    lower=st.integers(0, 2**31 - 1),
)
tunnels = st.one_of(
    st.fixed_dictionaries({"tunnel": st.just("ipip")}),
    st.fixed_dictionaries({"tunnel": st.just("gre"), "tunnel_checksum": st.sampled_from(["none", "full", "remote"])}),
    st.fixed_dictionaries(
        {
            "tunnel": st.just("gue"),
            "tunnel_port": st.integers(1, 65535),
            "tunnel_checksum": st.sampled_from(["none", "full", "remote"]),
        }
    ),
)


@given(destinations, tunnels, st.integers(1, 65535))
def test_a_row_is_what_its_record_says(found: Destination, tunnel: dict[str, object], port: int) -> None:
    if found.forwarding == "tunnel":
        found = replace(found, **tunnel)
    if found.forwarding == "masquerade" and port != found.service.real_port:
        found = replace(found, port=port)
    record = rows.record_of_destination(found, found.weight)
    assert rows.is_ours(found.service, record)
    assert rows.destination(found.service, 0, record) == found
    assert rows.name_of(found.service, record) == found.name
    request = codec.destination_request(Command.NEW_DEST, rows.record_of_key(found.service), record)
    assert codec.decode_destination(request.payload) == record
    assert rows.key_of(codec.decode_service(_with_settings(request.payload))) == found.service


def _with_settings(payload: bytes) -> bytes:
    """The service's key of a request about a destination, as an answer about the service has it."""
    record = rows.record_of_key(KEY)._replace(scheduler="rr")
    whole = codec.service_request(Command.NEW_SERVICE, record).payload
    settings = whole[len(codec.service_request(Command.DEL_SERVICE, record).payload) :]
    key = payload[4 : int.from_bytes(payload[:2], sys.byteorder)]
    return (4 + len(key) + len(settings)).to_bytes(2, sys.byteorder) + payload[2:4] + key + settings


def test_checksums_of_two_kinds_at_once_are_mended() -> None:
    record = codec.Destination("192.0.2.1", 80, tunnel=codec.Tunnel.GRE, tunnel_flags=3)
    found = rows.destination(KEY, 0, record)
    assert str(Change(found, replace(found, tunnel_checksum="full"))).endswith(
        "forwarding tunnel gre checksum 0x3 -> tunnel gre checksum full"
    )


def test_a_foreign_service_takes_one_line() -> None:
    record = rows.record_of_key(KEY)._replace(scheduler="rr")
    assert rows.foreign_service(record, 2) == "198.51.100.1:80/tcp (rr, 2 destinations)"
    assert rows.foreign_service(codec.Service("", 0, 0, "rr", fwmark=7), 1) == "fwmark 0x7 ipv4 (rr, 1 destination)"
    six = codec.Service("", 0, 0, "rr", fwmark=7, family=socket.AF_INET6)
    assert rows.foreign_service(six, 0) == "fwmark 0x7 ipv6 (rr, 0 destinations)"
    other = codec.Service("198.51.100.1", 50, 0, "wlc")
    assert rows.foreign_service(other, 1) == "198.51.100.1 protocol 50 port 0 (wlc, 1 destination)"
