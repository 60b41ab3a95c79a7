"""What is remembered of the kernel's table is what decoding it afresh would say, whatever the kernel sends."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import LbnodeError
from lbnode.ipvs import codec, rows
from lbnode.ipvs.codec import Command
from lbnode.ipvs.memory import Memory
from lbnode.ipvs.messages import BOTH, align, alike, attribute, messages
from lbnode.resources import Destination, DestinationOrder, ServiceKey

SERVICE = codec.Service("198.51.100.1", 6, 443, flags=0x18)
FAMILY, SEQUENCE = 27, 7


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


counters = st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5)
destinations = st.builds(
    codec.Destination,
    address=st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
    port=st.sampled_from([443, 8443]),
    forwarding=st.integers(0, 4),
    weight=st.integers(0, 3),
    upper=st.sampled_from([0, 9]),
    lower=st.just(0),
    tunnel=st.integers(0, 2),
    tunnel_port=st.sampled_from([0, 6080]),
    tunnel_flags=st.integers(0, 2),
)


def sent(destination: codec.Destination, counts: list[int], family_last: bool = True) -> bytes:
    """A destination as ip_vs_genl_fill_dest writes it: settings, connections, family, counters. Or, not as it does,
    with the family before them."""
    payload = codec.destination_request(Command.NEW_DEST, SERVICE, destination).payload
    (service_length,) = struct.unpack_from("=H", payload)
    inner = payload[align(service_length) + 4 :]
    # The request has the family behind address and port: 20 and 8 bytes.
    before, family, settings = inner[:28], inner[28:36], inner[36:]
    connections = b"".join(number(kind, value) for kind, value in zip((7, 8, 9), counts, strict=False))
    statistics = attribute(10, struct.pack("=II", *counts[3:]))
    parts = (before, settings, connections, family) if family_last else (before, settings, family, connections)
    return attribute(2 | 0x8000, b"".join(parts) + statistics)


@given(st.lists(st.tuples(destinations, counters, st.booleans()), max_size=12))
def test_destinations_are_what_decoding_says(wanted):
    """Also when the kernel changes its mind about the order of attributes in the middle of a dump."""
    memory = Memory()
    payloads = [sent(*one) for one in wanted]
    for _ in range(3):
        memory.begin()
        found = memory.destinations(payloads)
        assert list(found) == [codec.decode_destination(payload) for payload in payloads] == [one for one, *_ in wanted]


@given(st.lists(destinations, max_size=8, unique_by=lambda one: (one.address, one.port)), counters, counters)
def test_a_table_whose_counters_alone_have_changed_is_the_very_same(wanted, some, others):
    memory, key = Memory(), ServiceKey(SERVICE.address, "tcp", SERVICE.port)
    tables = []
    for counts in (some, others):
        memory.begin()
        records = memory.destinations([sent(one, counts) for one in wanted])
        tables.append(memory.table(key, SERVICE, records))
    assert tables[0] is tables[1] or not wanted
    assert list(tables[1].rows) == rows.rows_of(key, SERVICE, wanted)
    assert len(tables[1].foreign) + sum(isinstance(row, Destination) for row in tables[1].rows) == len(wanted)


def test_a_changed_weight_is_seen():
    memory, key = Memory(), ServiceKey(SERVICE.address, "tcp", SERVICE.port)
    found = []
    for weight in (100, 50, 100):
        memory.begin()
        standing = [codec.Destination("192.0.2.1", 443, weight=weight), codec.Destination("192.0.2.2", 443)]
        records = memory.destinations([sent(one, [0] * 5) for one in standing])
        found.append(memory.table(key, SERVICE, records).rows[2])
    assert [row.weight for row in found] == [100, 50, 100]


def test_another_order_of_the_same_rows_is_seen():
    memory, key = Memory(), ServiceKey(SERVICE.address, "tcp", SERVICE.port)
    newest_first = [codec.Destination(f"192.0.2.{last}", 443) for last in (3, 2, 1)]
    for standing in (newest_first, newest_first[::-1]):
        memory.begin()
        table = memory.table(key, SERVICE, memory.destinations([sent(one, [0] * 5) for one in standing]))
        names = tuple(one.address for one in reversed(standing))
        assert table.rows[-1] == DestinationOrder(key, names)


@given(st.binary(max_size=80))
def test_what_is_no_destination_is_refused_and_not_remembered(junk):
    memory = Memory()
    good = sent(codec.Destination("192.0.2.1", 443), [0] * 5)
    assert memory.destinations([good]) == (codec.decode_destination(good),)
    try:
        wanted = (codec.decode_destination(junk),)
    except LbnodeError:
        with pytest.raises(LbnodeError):
            memory.destinations([junk])
    else:
        assert memory.destinations([junk]) == wanted


def message(payload: bytes, kind: int = FAMILY, flags: int = 2, sequence: int = SEQUENCE) -> bytes:
    length = BOTH.size + len(payload)
    return BOTH.pack(length, kind, flags, sequence, 0, 1, 1, 0) + payload + bytes(align(length) - length)


datagrams = st.lists(
    st.builds(
        message,
        st.one_of(st.just(b"one length"), st.binary(max_size=12)),
        st.sampled_from([FAMILY, FAMILY, FAMILY, 2, 3]),
        st.sampled_from([2, 2, 0x12]),
        st.sampled_from([SEQUENCE, SEQUENCE, SEQUENCE + 1]),
    ),
    max_size=5,
)


@given(datagrams, st.binary(max_size=6))
def test_messages_that_are_alike_are_cut_as_others(wanted, tail):
    data = b"".join(wanted) + tail
    if found := alike(data, FAMILY, SEQUENCE):
        slowly = list(messages(data, SEQUENCE, SEQUENCE))
        assert [one.body[4:] for one in slowly] == found
        assert {(one.type, one.flags & 0x10) for one in slowly} == {(FAMILY, 0)}


def test_a_usual_dump_is_cut_at_once():
    assert alike(message(b"abc") * 40, FAMILY, SEQUENCE) == [b"abc"] * 40
