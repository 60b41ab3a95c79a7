"""The agent's sign of life for the relay, written from its loop: an agent whose loop hangs, or whose pass does not come
to an end, gives none (docs/adr/0007)."""

import asyncio
import logging
from contextlib import suppress

from lbnode.bgp import heartbeat
from lbnode.bgp.heartbeat import Beat
from lbnode.config.leaving import DeadMan
from lbnode.paths import Paths

log = logging.getLogger("lbnode")

EVERY_S = 5.0


class Pulse:
    """Silent until `well` is called for the first time, which is after a pass; `rule` is what the relay should do."""

    def __init__(self, paths: Paths) -> None:
        self._file = paths.bgp_heartbeat
        self._rule: DeadMan | None = None
        self._busy_since: float | None = None

    def begin(self) -> None:
        """A pass begins."""
        self._busy_since = heartbeat.now()

    def end(self, rule: DeadMan | None) -> None:
        """A pass has ended, well or not. `rule` is None where no relay listens."""
        self._busy_since = None
        before, self._rule = self._rule, rule
        if rule is not None and rule != before:
            self.beat()
        elif rule is None and before is not None:
            self.stop()

    def beat(self) -> None:
        """Says since when all is well: now, or since the beginning of a pass that takes too long."""
        if self._rule is None:
            return
        now, busy = heartbeat.now(), self._busy_since
        at = busy if busy is not None and now - busy > self._rule.after_s else now
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            heartbeat.write(self._file, Beat(at, self._rule.after_s, self._rule.then))
        except OSError as error:
            log.error("cannot write %s: %s", self._file, error.strerror)  # noqa: TRY400 - the reason is all there is

    async def run(self) -> None:
        """For ever."""
        while True:
            self.beat()
            await asyncio.sleep(min(EVERY_S, self._rule.after_s / 4) if self._rule else EVERY_S)

    def stop(self) -> None:
        """Nobody has to be alive from here on."""
        self._rule = None
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
