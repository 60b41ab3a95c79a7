"""The ledger: which IPVS services this boot's runs have made.

IPVS keeps no mark of who made a service. A service that has left the cluster file would look like somebody else's; so
what lbnode makes is noted under /run, which is emptied when the kernel's own state is.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lbnode.errors import LbnodeError
from lbnode.resources import ServiceKey


@dataclass(frozen=True)
class Ledger:
    """A JSON list of [vip, protocol, port], written by rename. A missing file is an empty ledger."""

    path: Path

    def read(self) -> frozenset[ServiceKey]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
            return frozenset(ServiceKey(str(vip), protocol, int(port)) for vip, protocol, port in entries)
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError) as error:
            raise LbnodeError(f"cannot read the ledger {self.path}: {error}") from error

    def add(self, services: Iterable[ServiceKey]) -> None:
        self._replace(self.read() | set(services))

    def remove(self, services: Iterable[ServiceKey]) -> None:
        self._replace(self.read() - set(services))

    def _replace(self, services: frozenset[ServiceKey]) -> None:
        if services == self.read():
            return
        beside = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(sorted(services), indent=1) + "\n", encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            raise LbnodeError(f"cannot write the ledger {self.path}: {error}") from error
