"""Keeps the health of a set of probes current: one task each, which after a first time go apart in the interval.

The set may change at any time (`follow`); what is known of a probe that stays is kept.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from lbnode.health.probes import Client, ask
from lbnode.health.state import Health, Outcome, Probe, step

REST_S = 0.05
"""Between two probes of a target that takes longer to answer than the interval."""


@dataclass(frozen=True)
class Pace:
    """How often and how patiently: seconds, and how many results in a row turn the health. `jitter` is the share of the
    interval by which a probe comes early or late."""

    interval_s: float
    timeout_s: float
    rise: int
    fall: int
    jitter: float = 0.1


def rest(left_s: float, pace: Pace, luck: float) -> float:
    """How long to wait, in seconds, before a probe that is due in `left_s`: give or take a share of the interval, so
    that nodes that began together do not ask together. `luck` is between -1 and 1."""
    return max(0.0, left_s + luck * pace.jitter * pace.interval_s)


async def probe_once(probes: Iterable[Probe], timeout_s: float, fall: int = 1) -> dict[Probe, Health]:
    """Asks each probe, all together, until it is known: for `lbnode plan` and `apply` when no agent is running.

    One success or `fall` failures in a row decide; what could not be asked `fall` times stays unknown.
    """

    async def settle(probe: Probe, client: Client) -> Health:
        health = Health()
        for _ in range(fall):
            if health.up is None:
                health = step(health, await ask(probe, timeout_s, client), 1, fall)
        return health

    wanted = list(probes)
    async with Client() as client:
        found = await asyncio.gather(*(settle(probe, client) for probe in wanted))
    return dict(zip(wanted, found, strict=True))


class Monitor:
    """Probes for ever. `changed` is called, in the event loop, whenever a health or an admin state turns."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._health: dict[Probe, Health] = {}
        self._tasks: dict[Probe, asyncio.Task[None]] = {}
        self._pace: Pace | None = None
        self._client: Client | None = None
        self._back: dict[Probe, float] = {}
        self._first: set[Probe] = set()
        self._settled = asyncio.Event()

    @property
    def health(self) -> Mapping[Probe, Health]:
        """A copy: what is known now. May be read in any thread."""
        now, known, back = time.monotonic(), dict(self._health), dict(self._back)
        return {
            probe: replace(health, back_for_s=now - back[probe]) if probe in back else health
            for probe, health in known.items()
        }

    async def follow(self, probes: Iterable[Probe], pace: Pace) -> None:
        """From now on, keep these probes current, at this pace."""
        self._client = self._client or Client()
        wanted = set(probes)
        for probe in [probe for probe in self._tasks if probe not in wanted or pace != self._pace]:
            self._tasks.pop(probe).cancel()
        self._pace = pace
        for probe in wanted - self._tasks.keys():
            known = self._health.setdefault(probe, Health())
            if known.up is None:
                self._first.add(probe)
            self._tasks[probe] = asyncio.create_task(self._keep(probe, pace, self._client))
        self._health = {probe: self._health[probe] for probe in wanted}
        self._back = {probe: since for probe, since in self._back.items() if probe in wanted}
        self._first &= wanted
        self._mark_settled()

    async def settled(self) -> None:
        """Returns when every probe has found something out, so that a first decision rests on something."""
        await self._settled.wait()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client:
            await self._client.close()

    async def _keep(self, probe: Probe, pace: Pace, client: Client) -> None:
        loop = asyncio.get_running_loop()
        # The first answer is wanted at once; probes that began together part after it.
        due = loop.time() - pace.interval_s * random.random()  # noqa: S311
        while True:
            self._take(probe, await ask(probe, pace.timeout_s, client), pace)
            due = max(due + pace.interval_s, loop.time() + REST_S)
            await asyncio.sleep(rest(due - loop.time(), pace, random.uniform(-1, 1)))  # noqa: S311

    def _take(self, probe: Probe, outcome: Outcome, pace: Pace) -> None:
        before = self._health[probe]
        after = step(before, outcome, pace.rise, pace.fall)
        self._health[probe] = after
        if before.up is False and after.up:
            self._back[probe] = time.monotonic()
        elif after.up is False:
            self._back.pop(probe, None)
        if after.up is not None:
            self._first.discard(probe)
            self._mark_settled()
        if (after.up, after.admin, after.silent) != (before.up, before.admin, before.silent):
            self._changed()

    def _mark_settled(self) -> None:
        if self._first:
            self._settled.clear()
        else:
            self._settled.set()
