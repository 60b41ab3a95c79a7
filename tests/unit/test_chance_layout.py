"""The table that the classifier reads: unpacked here as the C source says, it gives what the tables in Python give."""

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode import maglev
from lbnode.chance import elf, layout, program
from lbnode.chance.generations import generation_of
from lbnode.chance.layout import CHOICES, LAST, ROW, SERVERS, STRUCTURES, candidates, mapped, pack
from lbnode.maglev import MH_PORT, SLOTS, Server, build, lookup

CLIENT = "203.0.113.7"
SOURCE = program.OBJECT.with_suffix(".c").read_text()


def generation(numbers, down=(), flags=("mh-fallback", "mh-port")):
    servers = [Server(f"192.0.2.{number}", 80, 0 if number in down else 100, 100) for number in numbers]
    return generation_of(build(servers, 4, flags=flags))


def rows(content):
    return [content[at : at + ROW] for at in range(0, len(content), ROW)]


def slot(content, number):
    values = struct.unpack(f"<{STRUCTURES}H{CHOICES}H", rows(content)[number])
    return values[:STRUCTURES], [choice for choice in values[STRUCTURES:] if choice != LAST]


def walk(content, port):
    """As classifier.c does: the candidates of a flow."""
    key = int.from_bytes(mapped(CLIENT)[12:], "big") + port
    home = maglev._hsiphash(key & 0xFFFFFFFF, maglev._KEY1) % SLOTS
    table, found = rows(content), []
    for choice in slot(content, home)[1]:
        structure, down = choice >> 12, choice & 0xFFF
        at = home
        for step in range(64):
            server = slot(content, at)[0][structure]
            if not down or not table[SLOTS + SERVERS + down][server >> 3] >> (server & 7) & 1:
                found.append(table[SLOTS + server][:16])
                break
            at = maglev._hsiphash(key + (step + home) % SLOTS & 0xFFFFFFFF, maglev._KEY1) % SLOTS
    return [address for address in dict.fromkeys(found) if any(address)]


GENERATIONS = st.lists(
    st.tuples(st.lists(st.integers(1, 9), min_size=2, unique=True), st.sets(st.integers(1, 9), max_size=3)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(GENERATIONS, st.integers(1024, 65535), st.sets(st.integers(1, 9), max_size=2))
def test_it_says_what_the_tables_say(history, port, failed):
    some = [generation(numbers, down) for numbers, down in history]
    blank = {f"192.0.2.{number}" for number in failed}
    expected = [mapped(address) for address, _ in candidates(some, blank, CLIENT, port)]
    assert walk(pack(some, blank), port) == expected


def test_choices_that_come_to_the_same_stand_there_once():
    """A rolling restart of 30: two places for each flow, however many generations."""
    numbers = range(1, 31)
    some = [generation(numbers), *(generation(numbers, [number]) for number in numbers)]
    content = pack(some)
    assert {len(slot(content, number)[1]) for number in range(SLOTS)} == {2}


def test_the_newest_choice_stands_first_and_there_is_always_a_last_one():
    some = [generation(range(1, number + 1)) for number in range(30, 0, -1)]
    content = pack(some)
    first = some[0].table
    for number in range(0, SLOTS, 97):
        owners, choices = slot(content, number)
        assert choices[0] == 0
        assert rows(content)[SLOTS + owners[0]][:16] == mapped(first.servers[first.slots[number]].address)
        assert len(choices) < CHOICES


def test_more_structures_than_fit_lose_the_oldest():
    some = [generation(range(1, number + 1)) for number in range(30, 0, -1)]
    assert pack(some) == pack(some[:STRUCTURES])


def test_without_fallback_a_server_that_is_down_has_no_substitute():
    some = [generation([1, 2, 3], [2], flags=[MH_PORT])]
    held = some[0].table
    content = pack(some)
    for number in range(0, SLOTS, 41):
        down = held.servers[held.slots[number]].address == "192.0.2.2"
        assert slot(content, number)[1] == ([] if down else [0])


def test_a_failed_server_is_blank_and_nothing_else_changes():
    some = [generation([1, 2, 3]), generation([1, 2])]
    whole, blank = rows(pack(some)), rows(pack(some, {"192.0.2.2"}))
    differing = [number for number in range(layout.ROWS) if whole[number] != blank[number]]
    assert len(differing) == 1
    assert whole[differing[0]][:16] == mapped("192.0.2.2")
    assert blank[differing[0]] == bytes(ROW)


@pytest.mark.parametrize("some", [[], [generation([], [])]])
def test_no_server_is_no_choice(some):
    content = pack(some)
    assert len(content) == layout.BYTES
    assert slot(content, 0) == ((0,) * STRUCTURES, [])


def test_where_a_flow_may_live_is_told_with_the_newest_generation_that_says_so():
    now, before = generation([1, 2, 3, 4]), generation([1, 2, 3])
    found = dict(candidates([now, before, generation([1, 2, 3, 4], [9])], (), CLIENT, 4000))
    server = lookup(now.table, CLIENT, 4000).server
    assert found[server.address] == now


@pytest.mark.parametrize("name", ["SLOTS", "SERVERS", "DOWNS", "STRUCTURES", "CHOICES"])
def test_the_source_has_the_same_sizes(name):
    assert int(re.search(rf"#define {name} (\d+)", SOURCE)[1]) == getattr(layout, name)


def test_the_object_has_them_too():
    assert program.built()[0].maps["table"] == elf.Definition(2, 4, ROW, layout.ROWS, 0)


def test_the_source_counts_by_the_same_reasons():
    names = re.search(r"enum reason \{(.*?)REASONS", SOURCE, re.DOTALL)[1]
    found = re.findall(r"^\s*([A-Z_0-9]+),", names, re.MULTILINE)
    assert tuple(name.lower().replace("_", "-") for name in found) == program.REASONS
