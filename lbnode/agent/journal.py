"""What the agent has to tell of its passes: to the log when it happens, to status while it matters."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from lbnode.agent.metrics import Counts
from lbnode.drivers import Result
from lbnode.reconcile import Pass

log = logging.getLogger("lbnode")

TOLD = 500
"""So many changes of one pass are logged one by one: a large table that is made at once is some 100,000."""


class Journal:
    """`problems` by where they are, while they last; the `recent` changes; the `last` pass; and `counts` of all."""

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}
        self._recent: deque[dict[str, Any]] = deque(maxlen=100)
        self.last: dict[str, Any] = {}
        self.counts = Counts()

    def as_json(self) -> dict[str, Any]:
        return {
            "last_pass": self.last,
            "counts": dict(self.counts.__dict__),
            "problems": [f"{where}: {text}" for where, text in dict(self._problems).items()],
            "recent": list(self._recent),
        }

    def tell(self, where: str, text: str) -> None:
        """Keeps a problem while it lasts; logs it when it comes, changes, and goes ("")."""
        if text == self._problems.get(where, ""):
            return
        if text:
            self._problems[where] = text
            log.error("%s: %s", where, text)
        else:
            del self._problems[where]
            log.info("%s: in order again", where)

    def made(self, cause: str, results: Sequence[Result]) -> None:
        """Changes that were carried out; what failed is left to the pass."""
        good = [result for result in results if not result.error]
        for result in good[:TOLD]:
            log.info("%s: %s", cause, result)
            self._recent.append({"at": time.time(), "cause": cause, "change": str(result)})
        if len(good) > TOLD:
            log.info("%s: and %d changes more", cause, len(good) - TOLD)

    def passed(self, began: float, cause: str, done: Pass, drift: int) -> None:
        """One pass: what it did is told; what failed is told once, as a problem, however often it is tried again."""
        self.counts.add(done, drift)
        self.made(cause, done.results)
        self.tell("pass", "; ".join(done.errors))
        self.last = {
            "at": began,
            "seconds": round(time.time() - began, 4),
            "cause": cause,
            "changes": len(done.plan.changes),
            "foreign": list(done.left.foreign),
            "waiting": list(done.left.waiting),
        }

    def failed(self, why: str) -> None:
        """A pass that could not be carried through."""
        self.counts.add(None)
        self.tell("pass", why)
