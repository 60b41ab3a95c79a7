"""The lab's DNS client against messages as servers write them, and as nobody should; and the lab's DNS servers."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary

from lbnode.lab import build, dns
from lbnode.lab.clients.dns import Addresses, BadAnswer, answer, question
from lbnode.templates import share

NAME = "www.example.org"
POINTER = b"\xc0\x0c"
FOUR, SIX = bytes([198, 51, 100, 1]), bytes.fromhex("20010db8c63364010000000000000001")


def message(
    *records: tuple[int, int, bytes], number: int = 7, version: int = 4, code: int = 0, name: str = NAME
) -> bytes:
    asked = question(number, name, version)
    head = struct.pack("!6H", number, 0x8400 | code, 1, len(records), 0, 0)
    told = (POINTER + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data for kind, ttl, data in records)
    return head + asked[12:] + b"".join(told)


def test_addresses_of_the_family_that_was_asked_for():
    told = message((5, 300, b"\x03foo" + POINTER), (1, 30, FOUR), (1, 20, bytes([198, 51, 100, 2])))
    assert answer(told, 7, NAME, 4) == Addresses(0, True, frozenset({"198.51.100.1", "198.51.100.2"}), 20)
    told = message((28, 30, SIX), (1, 5, FOUR), version=6)
    assert answer(told, 7, NAME, 6) == Addresses(0, True, frozenset({"2001:db8:c633:6401::1"}), 30)


def test_a_name_that_is_not_there():
    assert answer(message(code=3), 7, NAME, 4) == Addresses(3, True)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        message((1, 30, FOUR), number=8),
        message((1, 30, FOUR), version=6),
        message((1, 30, FOUR), name="www1.example.org"),
        message((1, 30, FOUR))[:-1],
        message((1, 30, FOUR[:3])),
        question(7, NAME, 4),
    ],
    ids=["empty", "number", "family", "name", "cut short", "three octets", "a question"],
)
def test_what_is_no_answer_is_refused(told: bytes):
    with pytest.raises(BadAnswer):
        answer(told, 7, NAME, 4)


@given(binary(max_size=80))
def test_nothing_else_comes_of_any_message(rest: bytes):
    told = struct.pack("!6H", 7, 0x8400, 1, 3, 0, 0) + question(7, NAME, 4)[12:] + rest
    with suppress(BadAnswer):
        answer(told, 7, NAME, 4)


@pytest.mark.parametrize("scale", ["small", "seed"])
def test_the_labs_servers_stand_at_the_addresses_of_the_cluster_file(scale: str):
    lab = build.load(share("lab") / "three-tier", scale)
    assert lab.cluster.dns is not None
    assert dns.servers(lab) == tuple(lab.cluster.dns.servers) == ("ns1", "ns2")
    for name, server in lab.cluster.dns.servers.items():
        assert lab.machines[name].every_address == tuple(map(str, server.addresses))
    files = dns.files(lab, "ns1", Path("/run/lab/gdnsd"))
    assert [str(path) for path in files] == ["/run/lab/gdnsd/config", "/run/lab/gdnsd/zones/example.org"]
