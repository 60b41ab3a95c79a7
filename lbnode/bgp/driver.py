"""The driver of announcements: leaves its orders in the file `wanted`, and reads in `told` what became of them.

ExaBGP's relay follows the file by itself, so what is announced does not depend on the life of whoever wrote it: an
agent that dies withdraws nothing, and an ExaBGP that comes back announces what stands there (docs/adr/0001).
"""

import os
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lbnode.bgp import words
from lbnode.bgp.inotify import Watch
from lbnode.bgp.told import Told, alive, announcement, read_told
from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import Announcement, Key, Row, Running

LOOK_S = 0.1
"""A relay that dies writes nothing: so often it is looked whether it still lives."""
AGAIN_S = 0.2
"""How long a batch waits for a relay that an earlier batch has waited for in vain."""
SILENT = "cannot see what became of {}: ExaBGP runs, but its relay has not answered yet"
START_IT = "start it: systemctl start lbnode-exabgp"


class ExabgpDriver:
    """`wait_s`: how long one batch waits for ExaBGP to follow. When a batch has waited in vain, the next ones wait
    little or not at all until ExaBGP has caught up: a pass has other rows to see to than these."""

    kinds: tuple[type[Row], ...] = (Running, Announcement)

    def __init__(self, paths: Paths, wait_s: float = 3.0) -> None:
        self.paths, self.wait_s = paths, wait_s
        self._config = ""
        self._orders: dict[Key, Announcement] | None = None
        self._in_vain = self._absent = False

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """What ExaBGP announces now.

        An announcement without an order behind it would not come back after a restart, so it does not count when it is
        `wanted`. An order that nobody has carried out would come true later, so it is a row when it is not `wanted`.
        """
        told, left = read_told(self.paths), self._left()
        orders = {row.key: row for row in map(announcement, left.routes.values())}
        announced = {row.key: row for row in told.announced} if told else {}
        desired = {row.key: row for row in wanted}
        self._orders, self._config = orders | announced, left.config
        rows = {key: row for key, row in announced.items() if key not in desired or orders.get(key) == row}
        rows |= {key: row for key, row in orders.items() if key not in announced and key not in desired}
        if told is None:
            return Observed(tuple(rows.values()))
        self._absent = False
        if told.serial == left.serial and left.config in ("", told.config):
            self._in_vain = False
        running = Running("exabgp", told.config)
        if desired.get(running.key) == running:
            self._config = told.config
        return Observed((running, *rows.values()))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """Writes the orders, all of them, and waits until they have been followed."""
        if self._orders is None:
            self.observe(())
        orders, config = dict(self._orders or {}), ""
        for change in changes:
            if isinstance(change.new, Running):
                config = self._config = change.new.config
            elif isinstance(change.new, Announcement):
                orders[change.new.key] = change.new
            else:
                orders.pop(change.row.key, None)
        self._orders = orders
        try:
            told = self._order(config, self._patience(changes))
        except OSError as error:
            return [Result(change, f"cannot write {self.paths.bgp_wanted}: {error.strerror}") for change in changes]
        if told is None and alive(self.paths):
            return [Result(change, SILENT.format(change.row.title)) for change in changes]
        announced = {row.key: row for row in told.announced} if told else {}
        return [Result(change, _error(change, told, announced)) for change in changes]

    def _patience(self, changes: Sequence[Change]) -> float:
        """Seconds. An ExaBGP that does not run need not be waited for to withdraw something."""
        if alive(self.paths):
            return min(AGAIN_S, self.wait_s) if self._in_vain else self.wait_s
        return 0 if self._absent or not any(change.new for change in changes) else self.wait_s

    def _left(self) -> words.Wanted:
        return _orders(self.paths)

    def _order(self, config: str, wait_s: float) -> Told | None:
        """Writes `wanted`, waits until it is followed, and ExaBGP runs with `config` unless that is "". Returns the
        latest answer, of whatever orders."""
        serial = f"{os.getpid()}-{time.monotonic_ns()}"
        path = self.paths.bgp_wanted
        path.parent.mkdir(parents=True, exist_ok=True)
        watch, poll = Watch(path.parent), select.poll()
        try:
            poll.register(watch.fd, select.POLLIN)
            routes = map(asdict, (self._orders or {}).values())
            scratch = path.with_name(f".{path.name}.{os.getpid()}")
            scratch.write_text(words.wanted_text(routes, self._config, serial), encoding="utf-8")
            scratch.chmod(0o644)  # the relay runs as another user
            scratch.replace(path)
            deadline = time.monotonic() + wait_s
            while True:
                told, left = read_told(self.paths), deadline - time.monotonic()
                self._in_vain = told is None or told.serial != serial or config not in ("", told.config)
                self._absent = told is None and (self._absent or wait_s > 0)
                if left <= 0 or not self._in_vain:
                    return told
                poll.poll(1000 * min(LOOK_S, left))
                watch.names()
        finally:
            watch.close()


def announced(paths: Paths) -> frozenset[str]:
    """The addresses that are to be announced, by the orders that were left last. Raises LbnodeError."""
    return frozenset(announcement(route).prefix.partition("/")[0] for route in _orders(paths).routes.values())


def _orders(paths: Paths) -> words.Wanted:
    """The orders in the file; a file that is not there or not ours holds none."""
    try:
        return words.wanted_from(paths.bgp_wanted.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return words.Wanted({}, "", "")
    except OSError as error:
        raise LbnodeError(f"cannot read {paths.bgp_wanted}: {error.strerror}") from error


def peers(paths: Paths) -> dict[str, dict[str, Any]]:
    """The BGP peers by address: `state` (up, down, connected), `since` (seconds since 1970), `reason`.

    Empty when ExaBGP does not run. Raises LbnodeError when what the relay wrote cannot be read.
    """
    told = read_told(paths)
    return told.peers if told else {}


def _error(change: Change, told: Told | None, announced: Mapping[Key, Announcement]) -> str:
    """Why a change did not come true; "" when it did. `announced`: what was told, by key."""
    row = change.row
    if isinstance(row, Running):
        return _running_error(change, told)
    if change.action == "delete":
        if told and row.key in announced:
            return f"cannot withdraw {row.title}: ExaBGP does not follow" + _because(told)
        return ""
    if told is None:
        return f"cannot announce {row.title}: ExaBGP is not running; it will announce it when it starts"
    if row == announced.get(row.key):
        return ""
    if row.key in told.refused:
        return f"cannot announce {row.title}: {told.refused[row.key]}"
    return f"cannot announce {row.title}: ExaBGP does not follow" + _because(told)


def _running_error(change: Change, told: Told | None) -> str:
    if not isinstance(change.new, Running):
        return "cannot stop ExaBGP: lbnode starts and stops no programs; stop it: systemctl stop lbnode-exabgp"
    if told is None:
        return f"cannot run ExaBGP with configuration {change.new.config}: it is not running; {START_IT}"
    if told.config == change.new.config:
        return ""
    return f"cannot run ExaBGP with configuration {change.new.config}: it runs with {told.config}" + _because(told)


def _because(told: Told) -> str:
    return f": {told.problem}" if told.problem else " yet"
