"""Watches the routers' kernel tables while something is done to a network: what they had at first, and when some of it
was not there."""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lbnode.lab.scenarios.network import Network
from lbnode.lab.scenarios.sight import Routes

LOOK_S = 0.01

Way = tuple[str, str, str]
"""Router, VIP, next hop."""


@dataclass(frozen=True)
class Change:
    """From a moment on (seconds of time.monotonic) so many of the ways of the beginning are not there."""

    at: float
    missing: int


@dataclass(frozen=True)
class Gaps:
    """`first_s`: from the beginning of the watch to the first way that went; `times`: how often ways went when all had
    been there; `all_s`: for how long some were missing, in all; `whole`: all are there again. `most`: how many were
    missing at the worst moment, of `ways`."""

    first_s: float | None
    times: int
    all_s: float
    whole: bool
    most: int
    ways: int

    def __str__(self) -> str:
        if self.first_s is None:
            return "as before"
        often = f", {self.times} times" if self.times > 1 else ""
        share = "all ways" if self.most == self.ways else f"{self.most} of {self.ways} ways"
        end = "" if self.whole else ", and not back"
        return f"{share} gone after {self.first_s:.2f} s, for {self.all_s:.1f} s{often}{end}"


def gaps(changes: Sequence[Change], began: float, ended: float, ways: int) -> Gaps:
    """What a row of changes comes to."""
    first, times, total, most, since = None, 0, 0.0, 0, None
    for change in changes:
        if change.missing and since is None:
            since, times = change.at, times + 1
            first = change.at - began if first is None else first
        elif not change.missing and since is not None:
            total, since = total + change.at - since, None
        most = max(most, change.missing)
    if since is not None:
        total += ended - since
    return Gaps(first, times, total, since is None, most, ways)


class Eyes:
    """A context manager: looks every LOOK_S, in a thread of its own, at the ways through some machines."""

    def __init__(self, network: Network, hops: Collection[str] = (), routers: Collection[str] = ()) -> None:
        """`hops`, `routers`: ways by these addresses, and those of these routers, are looked at; no others."""
        self._hops, self._routers = frozenset(hops), frozenset(routers)
        self.before = self._chosen(network.all_routes())
        self._tables = {name: Routes(network.node(name)) for name in {router for router, _, _ in self.before}}
        self.began = time.monotonic()
        self._changes = [Change(self.began, 0)]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def calm_s(self) -> float:
        """For how long nothing has changed, and all is there; 0 when something is missing."""
        last = self._changes[-1]
        return 0.0 if last.missing else time.monotonic() - last.at

    def gaps(self) -> Gaps:
        return gaps(tuple(self._changes), self.began, time.monotonic(), len(self.before))

    def mark(self) -> None:
        """Begins anew: now it is done."""
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        for table in self._tables.values():
            table.close()

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            missing = len(self.before - self._look())
            if missing != self._changes[-1].missing:
                self._changes.append(Change(time.monotonic(), missing))

    def _look(self) -> frozenset[Way]:
        return self._chosen({name: table.gateways(4) | table.gateways(6) for name, table in self._tables.items()})

    def _chosen(self, routes: Mapping[str, Mapping[str, frozenset[str]]]) -> frozenset[Way]:
        return frozenset(
            (name, vip, hop)
            for name, vips in routes.items()
            for vip, hops in vips.items()
            for hop in hops
            if hop in self._hops or name in self._routers
        )
