"""What people have set an L7 node to, told to HAProxy at once, also while a pass is under way.

A pass over many servers, or one that reloads, takes a second or more, and it was decided by what people had said when
it began. So the order goes beside it, and the pass lets the enabler be when it has been overtaken.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock

from lbnode.agent.journal import Journal
from lbnode.drivers import Driver, Observed, Result
from lbnode.maintenance.state import AdminState
from lbnode.plan import Change
from lbnode.resources import Row, ServerState

OVERTAKEN = "overtaken by what was said since"


class Enabler:
    """HAProxy's driver, as passes use it (`lbnode.drivers.Driver`); `tell` goes beside them."""

    def __init__(self, driver: Driver, journal: Journal) -> None:
        self.kinds = driver.kinds
        self._driver, self._journal = driver, journal
        self._lock = Lock()
        self._latest: ServerState | None = None

    def tell(self, now: Callable[[], AdminState]) -> None:
        """Makes the health URI say it, when that is another word than the last one. What it says when an agent begins
        is for the first pass to find out."""
        from lbnode.roles.l7 import enabler_of

        with self._lock:
            admin = now()  # the latest: whoever waited for the lock may know an older one
            last, self._latest = self._latest, enabler_of(admin)
            if last is not None and self._latest != last:
                change = Change(last, self._latest, str(admin))
                self._journal.made("agent-check", self._driver.apply([change]))

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """As the driver; where a pass has been overtaken, all is as it wants it."""
        seen = self._driver.observe(wanted)
        stale = {row.key: row for row in wanted if isinstance(row, ServerState) and self._overtaken(row)}
        return replace(seen, rows=tuple(stale.get(row.key, row) for row in seen.rows)) if stale else seen

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """As the driver."""
        states = [change for change in changes if isinstance(change.new, ServerState)]
        others = [change for change in changes if change not in states]
        results = self._driver.apply(others) if others else []
        for change in states:
            with self._lock:
                stale = isinstance(change.new, ServerState) and self._overtaken(change.new)
                results += [Result(change, way=OVERTAKEN)] if stale else self._driver.apply([change])
        return results

    def _overtaken(self, wanted: ServerState) -> bool:
        return self._latest not in (None, wanted)
