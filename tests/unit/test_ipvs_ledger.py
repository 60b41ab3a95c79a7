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


@pytest.mark.parametrize("text", ["{", "[1]", '[["198.51.100.1", "tcp"]]', "3"])
def test_a_damaged_ledger_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ipvs.json"
    path.write_text(text)
    with pytest.raises(LbnodeError, match=f"cannot read the ledger {path}"):
        Ledger(path).read()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(LbnodeError, match=r"cannot (read|write) the ledger"):
        Ledger(tmp_path / "run" / "ipvs.json").add([WEB])
