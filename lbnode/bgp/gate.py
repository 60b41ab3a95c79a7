"""The last look at what is to be announced, inside the relay: the list of the cluster file, from a file of its own.

Without a list nothing new is announced, and nothing that stands is withdrawn for the lack of it. Only the standard
library.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from lbnode.bgp.guard import Guard
from lbnode.bgp.words import Key, Route


class Gate:
    """`permitted`: what may be told of what was wanted last; `barred`: the rest, and why; `problem`: with the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.guard: Guard | None = None
        self.permitted: Mapping[Key, Route] = {}
        self.barred: Mapping[Key, str] = {}
        self.problem = ""

    def read(self) -> None:
        """A list that is lost or spoilt leaves the one before in force."""
        try:
            self.guard = Guard.from_text(self.file.read_text(encoding="utf-8"))
            self.problem = ""
        except (OSError, ValueError) as error:
            lacking = "announcing nothing new" if self.guard is None else "going by what it said before"
            self.problem = f"cannot read {self.file}: {error}; {lacking}"

    def look(self, wanted: Mapping[Key, Route], told: Mapping[Key, Route]) -> None:
        """Sorts what is wanted. `told`: what is announced now."""
        if self.guard is None:
            why = f"{self.file} cannot be read"
            self.barred = {key: why for key in wanted if key not in told}
            self.permitted = {key: told[key] for key in wanted if key in told}
            return
        why, permits = f"it is outside of what {self.file} permits", self.guard.permits
        self.barred = {key: why for key in wanted if not permits(ipaddress.ip_network(key[1]))}
        self.permitted = {key: route for key, route in wanted.items() if key not in self.barred}
