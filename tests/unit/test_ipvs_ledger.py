"""The ledger remembers what this boot's runs have made."""

from pathlib import Path

import pytest

from lbnode.errors import LbnodeError
from lbnode.ipvs.ledger import Ledger
from lbnode.resources import ServiceKey

WEB, DNS = ServiceKey("198.51.100.1", "tcp", 80), ServiceKey("2001:db8::53", "udp", 53)


def test_what_is_added_is_there_until_it_is_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run" / "ipvs.json")
    assert ledger.read() == frozenset()
    ledger.add([WEB])
    ledger.add([WEB, DNS])
    assert Ledger(ledger.path).read() == {WEB, DNS}
    ledger.remove([WEB])
    assert ledger.read() == {DNS}
    assert [path.name for path in ledger.path.parent.iterdir()] == ["ipvs.json"]


def test_nothing_to_note_writes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run" / "ipvs.json")
    ledger.add([])
    ledger.remove([WEB])
    assert not ledger.path.parent.exists()


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", '[["198.51.100.1", "tcp"]]', "3", "{}x", "null", '[["198.51.100.1", "icmp", 1]]', "\udcff", "[[[]]]"],
)
def test_a_damaged_ledger_is_put_aside_and_told_of(tmp_path: Path, text: str) -> None:
    """It stops nothing: what is wanted is noted again; the message stays until somebody has seen to it."""
    ledger = Ledger(tmp_path / "ipvs.json")
    ledger.path.write_text(text, errors="surrogateescape")
    assert ledger.problem() == ""
    assert ledger.read() == frozenset()
    assert ledger.problem().startswith(f"ledger {tmp_path / 'ipvs.json.damaged'}: damaged")
    ledger.add([WEB])
    assert ledger.read() == {WEB}
    assert ledger.problem()
    ledger.damaged.unlink()
    assert ledger.problem() == ""


def test_a_mark_is_a_service_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ipvs.json")
    marks = {ServiceKey.of_mark(0xFFFFFFFF, 4), ServiceKey.of_mark(7, 6)}
    ledger.add(marks)
    assert ledger.read() == marks


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(LbnodeError, match=r"cannot (read|write) the ledger"):
        Ledger(tmp_path / "run" / "ipvs.json").add([WEB])


FIRST, SECOND = ("destination", *WEB, "192.0.2.1", 0), ("destination", *DNS, "2001:db8::1", 8080)


def test_how_long_a_destination_is_unwanted(tmp_path: Path) -> None:
    """From the first time it was seen so, whoever looks, until it is wanted again or gone."""
    path = tmp_path / "run" / "ipvs.json"
    assert Ledger(path).unwanted([], 5.0) == {}
    assert not path.parent.exists()
    assert Ledger(path).unwanted([FIRST], 10.0) == {FIRST: 10.0}
    assert Ledger(path).unwanted([SECOND, FIRST], 12.5) == {FIRST: 10.0, SECOND: 12.5}
    assert Ledger(path).unwanted([SECOND], 13.0) == {SECOND: 12.5}
    assert Ledger(path).unwanted([FIRST, SECOND], 14.0) == {FIRST: 14.0, SECOND: 12.5}
    assert Ledger(path).read() == frozenset()


def test_what_nobody_speaks_of_is_not_forgotten(tmp_path: Path) -> None:
    """A pass that asks for some services alone."""
    ledger = Ledger(tmp_path / "ipvs.json")
    ledger.unwanted([FIRST], 10.0)
    assert ledger.unwanted([], 20.0, {WEB}) == {}
    assert ledger.unwanted([SECOND], 21.0, {WEB}) == {SECOND: 21.0}
    assert ledger.unwanted([FIRST, SECOND], 30.0) == {FIRST: 10.0, SECOND: 21.0}


@pytest.mark.parametrize("text", ["", "[[]]", '[["destination", "x"]]', "3", '[["destination", 1e999]]'])
def test_times_that_cannot_be_understood_begin_again(tmp_path: Path, text: str) -> None:
    ledger = Ledger(tmp_path / "ipvs.json")
    ledger.times.write_text(text)
    assert ledger.unwanted([FIRST], 10.0) == {FIRST: 10.0}
    assert ledger.unwanted([FIRST], 11.0) == {FIRST: 10.0}


def test_who_may_not_write_sees_them_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in the way")
    assert Ledger(tmp_path / "run" / "ipvs.json").unwanted([FIRST], 10.0) == {FIRST: 10.0}
