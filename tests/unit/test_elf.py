"""The classifier's object file: that it is of its source, and that what is damaged is refused."""

import hashlib
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.chance import elf, program
from lbnode.errors import LbnodeError

CONTENT = program.OBJECT.read_bytes()


def test_the_object_is_of_the_source_beside_it():
    source = program.OBJECT.with_suffix(".c").read_bytes()
    assert program.built()[0].source == hashlib.sha256(source).hexdigest(), "run `make classifier`"


def test_its_parts():
    found, digest = program.built()
    assert found.licence == b"GPL"
    assert list(found.maps) == ["table", "groups", "endpoints", "peers", "own", "counters"]
    assert found.maps["counters"].entries == len(program.REASONS)
    assert set(found.places.values()) == set(found.maps) - {"table"}
    assert len(found.code) % 8 == 0
    assert digest == hashlib.sha256(CONTENT).hexdigest()[:12]


def test_descriptors_go_where_addresses_are_loaded():
    found, _ = program.built()
    numbers = {name: number for number, name in enumerate(found.maps, start=100)}
    linked = found.linked(numbers)
    for place, name in found.places.items():
        operation, registers, _, value = struct.unpack_from("<BBhi", linked, place)
        assert (operation, registers >> 4, value) == (0x18, 1, numbers[name])
    untouched = bytearray(linked)
    for place in found.places:
        untouched[place + 1 : place + 8] = found.code[place + 1 : place + 8]
    assert bytes(untouched) == found.code


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"MZ" + bytes(100), CONTENT[:100], CONTENT[:-300]])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(LbnodeError, match="cannot use the classifier"):
        elf.parse(content)


@given(st.integers(0, len(CONTENT) - 1), st.binary(min_size=1, max_size=8))
def test_damage_is_refused_or_harmless(place, damage):
    with suppress(LbnodeError):  # and nothing else
        elf.parse(CONTENT[:place] + damage + CONTENT[place + len(damage) :])
