"""The ledger: which IPVS services this boot's runs have made, and since when destinations of theirs are unwanted.

IPVS keeps no mark of who made a service. A service that has left the cluster file would look like somebody else's; so
what lbnode makes is noted under /run, which is emptied when the kernel's own state is. The times stand in a file of
their own, for a look at the plan writes them too, and must never undo what an apply notes at the same moment.

A file that cannot be understood is put aside, and told of for as long as it lies there: what is wanted is ours without
a ledger, what is not stays untouched.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbnode.errors import LbnodeError
from lbnode.resources import Key, ServiceKey


@dataclass(frozen=True)
class Ledger:
    """A JSON list of [vip, protocol, port], written by rename. A missing file is an empty ledger."""

    path: Path

    @property
    def damaged(self) -> Path:
        """Where a ledger that cannot be understood is put."""
        return self.path.with_name(self.path.name + ".damaged")

    @property
    def times(self) -> Path:
        return self.path.with_name(f"{self.path.stem}-unwanted.json")

    def read(self) -> frozenset[ServiceKey]:
        """Raises LbnodeError when the file is there and cannot be read."""
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
            return frozenset(_service(*entry) for entry in entries)
        except FileNotFoundError:
            return frozenset()
        except (IsADirectoryError, ValueError, TypeError):
            return self._put_aside()
        except OSError as error:
            raise LbnodeError(f"cannot read the ledger {self.path}: {error}") from error

    def problem(self) -> str:
        """One line about a damaged ledger, empty when there is none."""
        if not self.damaged.exists():
            return ""
        return (
            f"ledger {self.damaged}: damaged; services only it knew are taken for somebody else's; remove it when seen"
        )

    def add(self, services: Iterable[ServiceKey]) -> None:
        self._replace(self.read() | set(services))

    def remove(self, services: Iterable[ServiceKey]) -> None:
        self._replace(self.read() - set(services))

    def unwanted(
        self, keys: Iterable[Key], now: float, others: Collection[ServiceKey] = frozenset()
    ) -> Mapping[Key, float]:
        """Since when (seconds, on the clock of `now`) each of these destinations is unwanted: what was not known is
        noted with `now`, what is not among them any more is forgotten. Destinations of `others` are not judged this
        time: what was known of them stays."""
        known = self._times()
        found = {key: min(known.get(key, now), now) for key in keys}
        noted = {key: since for key, since in known.items() if key[1:4] in others} | found
        if noted != known:
            # Whoever may look, but not write, sees every one of them for the first time.
            with suppress(LbnodeError):
                _write(self.times, sorted([*key, since] for key, since in noted.items()))
        return found

    def _times(self) -> dict[Key, float]:
        try:
            entries = json.loads(self.times.read_text(encoding="utf-8"))
            return {tuple(map(_plain, entry[:-1])): float(entry[-1]) for entry in entries}
        except (OSError, ValueError, TypeError, LookupError):
            return {}

    def _replace(self, services: frozenset[ServiceKey]) -> None:
        if services != self.read():
            _write(self.path, sorted(services))

    def _put_aside(self) -> frozenset[ServiceKey]:
        try:
            self.path.replace(self.damaged)
        except OSError as error:
            raise LbnodeError(f"cannot put the damaged ledger {self.path} aside: {error}") from error
        return frozenset()


def _service(vip: object, protocol: Any, port: object) -> ServiceKey:
    """Raises ValueError for what is no service."""
    if not isinstance(vip, str) or not isinstance(port, int) or protocol not in ("tcp", "udp", "sctp", "fwmark"):
        raise ValueError(f"no service: {vip} {protocol} {port}")
    return ServiceKey(vip, protocol, port)


def _plain(part: object) -> str | int:
    """Raises ValueError for what stands in no key."""
    if not isinstance(part, str | int):
        raise ValueError(f"no part of a key: {part}")  # noqa: TRY004 - of a file
    return part


def _write(path: Path, content: object) -> None:
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise LbnodeError(f"cannot write the ledger {path}: {error}") from error
