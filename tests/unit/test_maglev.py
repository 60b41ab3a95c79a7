"""The Maglev table: the hash against an independent one, the laws, and what a change moves against a count of flows.

tests/kernel/test_maglev.py compares it with the kernel's.
"""

import os
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lbnode import maglev
from lbnode.maglev import (
    MH_FALLBACK,
    MH_PORT,
    SLOTS,
    Answer,
    Impact,
    Server,
    build,
    fingerprint,
    impact,
    lookup,
    shares,
)

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=30)
SAMPLE = 4096


def servers(weights, drained=()):
    """One server for each table weight; those whose index is in `drained` are at weight 0."""
    return [
        Server(f"192.0.2.{number}", 80, 0 if number in drained else weight, weight)
        for number, weight in enumerate(weights)
    ]


def table(weights, drained=(), flags=(MH_FALLBACK, MH_PORT)):
    return build(servers(weights, drained), 4, flags=flags)


def counted(before, after):
    """What `impact` says, counted: the share of a sample of keys that had a server and get another or none."""
    moved = 0
    for number in range(SAMPLE):
        source, port = f"203.0.113.{number % 251}", 1024 + number * 40503 % 64000
        old, new = (lookup(each, source, port).server for each in (before, after))
        moved += old is not None and (new is None or old.name != new.name)
    return moved / SAMPLE


def near(share):
    """Within four standard deviations of a count of SAMPLE flows."""
    return pytest.approx(share, abs=4 * (max(share * (1 - share), 1 / SAMPLE) / SAMPLE) ** 0.5)


def test_the_hash_is_siphash_1_3():
    """Python hashes bytes with it; PYTHONHASHSEED=0 makes the key 0."""
    assert sys.hash_info.algorithm == "siphash13"
    values = [0, 1, 443, 0xC0000201, 0xFFFFFFFF, *(number * 2654435761 % 2**32 for number in range(1000))]
    code = f"import struct; print(*(hash(struct.pack('<I', v)) % 2**32 for v in {values}))"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert [int(word) for word in said.stdout.split()] == [maglev._hsiphash(value, 0) for value in values]


def test_what_the_kernel_did_with_these_flows():
    """Read from a 6.1 kernel: three servers of weights 1, 2 and 3, and the same with the third at 0."""
    three = [Server(f"192.0.2.{number}", 443, number, number) for number in (1, 2, 3)]
    usual, drained = build(three, 4), build([*three[:2], three[2]._replace(weight=0)], 4)
    flows = [
        *(("203.0.113.1", 1024), ("203.0.113.1", 41527), ("203.0.113.2", 18030), ("203.0.113.250", 65535)),
        *(("203.0.113.77", 2000), ("203.0.113.78", 1999), ("203.0.113.99", 5353), ("203.0.113.128", 33000)),
    ]
    assert "".join(lookup(usual, *flow).server.address[-1] for flow in flows) == "32232223"
    assert "".join(lookup(drained, *flow).server.address[-1] for flow in flows) == "22212221"


@given(WEIGHTS)
def test_every_slot_is_held_and_shares_follow_the_turns(weights):
    found = table(weights)
    assume(any(weights))
    turns = maglev.turns(weights)
    assert len(found.slots) == SLOTS
    # Whole rounds give each its turns; the last one stops where the slots end.
    rounds = SLOTS // sum(turns)
    for index, turn in enumerate(turns):
        assert rounds * turn <= found.slots.count(index) <= (rounds + 1) * turn


@given(WEIGHTS)
def test_turns_keep_six_bits_of_the_weight(weights):
    turns = maglev.turns(weights)
    assert max(turns) <= 63
    assert [bool(turn) for turn in turns] == [bool(weight) for weight in weights]


def test_nothing_holds_the_slots_of_a_table_without_weights():
    empty = table([0, 0])
    assert empty.slots == build([], 4).slots == ()
    assert lookup(empty, "203.0.113.1", 1024) == Answer(None, lookup(empty, "203.0.113.1", 1024).slot, fallback=False)
    assert shares(empty) == {}


@given(WEIGHTS, st.sets(st.integers(0, 29)), st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_a_flow_finds_a_server_that_serves(weights, drained, fallback, source, port):
    found = table(weights, drained, (MH_FALLBACK, MH_PORT) if fallback else (MH_PORT,))
    answer = lookup(found, maglev.IPv4Address(source), port)
    serving = [server for server in found.servers if server.weight]
    if answer.server:
        assert answer.server in serving
        assert answer.fallback == (found.servers[found.slots[answer.slot]] != answer.server)
    else:
        assert not answer.fallback
        assert not (serving and fallback)


@given(WEIGHTS, st.sets(st.integers(0, 29)))
def test_a_drain_moves_the_flows_of_the_drained_alone(weights, drained):
    before, after = table(weights), table(weights, drained)
    assume(after.serves)
    for number in range(50):
        flow = (f"203.0.113.{number}", 1024 + number * 997)
        old, new = lookup(before, *flow).server, lookup(after, *flow).server
        assert old.name == new.name or int(old.address.rpartition(".")[2]) in drained
    assert impact(before, after).moved == pytest.approx(impact(before, after).unavoidable)
    assert impact(after, before).moved == pytest.approx(impact(after, before).unavoidable)


@given(WEIGHTS, st.sets(st.integers(0, 29)), WEIGHTS, st.sets(st.integers(0, 29)), st.booleans(), st.booleans())
def test_what_moves_is_a_share_and_never_less_than_what_must(weights, drained, others, gone, first, second):
    flags = [(MH_FALLBACK, MH_PORT) if fallback else (MH_PORT,) for fallback in (first, second)]
    before, after = table(weights, drained, flags[0]), table(others, gone, flags[1])
    moved, unavoidable = impact(before, after)
    assert 0 <= unavoidable <= moved <= 1 + 1e-9
    assert impact(before, before) == Impact(0, 0)
    assert sum(shares(before).values()) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (table([100] * 13), table([100] * 14)),
        (table([100] * 13), table([100] * 12)),
        (table([100] * 13, drained=[3]), table([100] * 13, drained=[3, 4, 5])),
        (table([100] * 13, drained=[3, 4, 5, 6]), table([100] * 14, drained=[3])),
        (table([1, 2, 3, 4], drained=[0]), table([4, 3, 2, 1], drained=[3])),
        (table([1, 2, 3, 4], drained=[0]), table([4, 3, 2, 1], drained=[3], flags=[MH_PORT])),
        (table([1, 2, 3, 4], drained=[0], flags=[MH_PORT]), table([4, 3, 2, 1], drained=[3])),
        (table([1, 2, 3, 4], drained=[0], flags=[MH_PORT]), table([4, 3, 2, 1], drained=[3], flags=[MH_PORT])),
        (table([1, 2, 3, 4]), table([1, 2, 3, 4], flags=[MH_FALLBACK])),
        (table([1, 2, 3, 4], drained=[1]), table([1, 2, 3, 4], drained=range(4))),
        (table([1, 2, 3, 4], drained=range(4)), table([1, 2, 3, 4])),
        (table([1, 2, 3, 4]), build([], 4)),
        (build([], 4), table([1, 2, 3, 4])),
        (table([100] * 60), table([99] + [100] * 59)),
    ],
)
def test_the_impact_is_what_a_count_of_flows_comes_to(before, after):
    assert counted(before, after) == near(impact(before, after).moved)


@pytest.mark.parametrize("count", [4, 13, 100])
def test_one_more_or_one_less_moves_its_share_and_a_little_of_the_others(count):
    fewer, more = table([100] * count), table([100] * (count + 1))
    for moved, unavoidable in (impact(fewer, more), impact(more, fewer)):
        assert unavoidable == pytest.approx(1 / (count + 1), rel=0.05)
        assert unavoidable < moved < unavoidable + 0.045


def test_the_order_decides_a_little():
    """The kernel puts a row that is deleted and added again last: a few slots of the others change hands."""
    usual = servers([100] * 10)
    re_added = build([*usual[:5], *usual[6:], usual[5]], 4)
    assert 0 < impact(build(usual, 4), re_added).moved < 0.01
    assert 0 < impact(build(usual, 4), build(usual[::-1], 4)).moved < 0.02
    assert fingerprint(build(usual, 4)) != fingerprint(re_added)


def test_the_fingerprint_is_that_of_all_that_decides():
    usual = servers([100, 50])
    same = fingerprint(build(usual, 4))
    assert same == fingerprint(build(list(usual), 4, flags=(MH_PORT, MH_FALLBACK)))
    assert len(same) == 12
    others = [
        build(usual, 6),
        build(usual, 4, size=251),
        build(usual, 4, flags=(MH_PORT,)),
        build(usual[::-1], 4),
        build([usual[0]._replace(weight=0), usual[1]], 4),
        build([usual[0]._replace(weight=101), usual[1]], 4),
        build([usual[0]._replace(port=81), usual[1]], 4),
        build([usual[0]._replace(address="192.0.2.77"), usual[1]], 4),
    ]
    assert len({same, *map(fingerprint, others)}) == len(others) + 1


def test_without_mh_port_the_address_alone_counts():
    found = table([100] * 20, flags=[MH_FALLBACK])
    assert len({lookup(found, "203.0.113.7", port).server for port in range(1024, 1124)}) == 1


def test_addresses_are_folded_by_the_family_of_the_service():
    """Four words XORed for IPv6; for an IPv4 service the first word alone (so servers in one /32 walk alike)."""
    six = build(servers([1, 2, 3]), 6)
    assert lookup(six, "2001:db8::5:0:1", 9).slot == lookup(six, "2001:db8:0:5::1", 9).slot
    assert lookup(six, "2001:db8::1", 9).slot == lookup(six, "2001:db8::2", 8).slot != lookup(six, "::1", 9).slot
    assert six.slots == build(servers([1, 2, 3]), 4).slots
    others = build([Server("2001:db8::1", 80, 1, 1), Server("192.0.2.1", 80, 1, 1)], 4)
    assert others.slots == build([Server("32.1.13.184", 80, 1, 1), Server("192.0.2.1", 80, 1, 1)], 4).slots


def test_what_the_kernel_cannot_build_is_refused():
    with pytest.raises(ValueError, match="cannot build a Maglev table of 4093 slots for 4094 servers"):
        build([Server(f"10.0.{number >> 8}.{number & 255}", 80, 1, 1) for number in range(4094)], 4)
    with pytest.raises(ValueError, match="cannot build a Maglev table of 4096 slots"):
        build([], 4, size=4096)


@pytest.mark.parametrize("size", maglev.SIZES[:6])
def test_tables_of_every_size_are_full(size):
    found = build(servers([1, 2, 3, 0, 999]), 4, size=size)
    assert len(found.slots) == size
    assert set(found.slots) <= {0, 1, 2, 4}
