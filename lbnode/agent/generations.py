"""Keeps the past of the Maglev tables: an L4 node notes what it uses, a real server asks all L4 nodes.

Asking is better than deciding anew: what the L4 nodes' kernels have is what places flows, be it right, late or made by
hand. It is also less: real servers need not probe each other. And it may be late: a packet that comes by a table which
this node has not heard of yet is of a flow that was placed by one it knows. Tables that were in use for a moment only
are not missed, for L4 nodes remember what they used.

    GET /generations             {"mark": "5c8e...", "past": {...}}, as `lbnode.chance.generations`
    GET /generations?known=5c8e  {"mark": "5c8e..."} while that is still it
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lbnode import impact
from lbnode.agent import neighbours
from lbnode.chance import generations, memory
from lbnode.chance.generations import Past
from lbnode.config.model import Cluster
from lbnode.node import Identity
from lbnode.plan import Plan
from lbnode.resources import LocalRoute
from lbnode.roles.second_chance import covered

log = logging.getLogger("lbnode")

ASK_S = 4.0
"""Seconds between two rounds of questions."""


class Tables:
    """What one agent knows of them. `problem` says what is wrong, "" when nothing is."""

    def __init__(self, identity: Identity, changed: Callable[[], None]) -> None:
        self.problem = ""
        self._identity = identity
        self._changed = changed
        self._cluster: Cluster | None = None
        self._task: asyncio.Task[None] | None = None
        self._told: dict[str, Past] = {}
        self._marks: dict[str, str] = {}

    async def follow(self, cluster: Cluster) -> None:
        """From now on, ask the L4 nodes of this cluster file, where this node can make use of it."""
        if cluster is self._cluster:
            return
        await self.close()
        self._cluster = cluster
        mine = [one for one in cluster.balanced.values() if self._identity.name in cluster.real_servers(one)]
        if self._identity.role != "l4" and cluster.second_chance.enabled and any(map(covered, mine)):
            self._task = asyncio.create_task(self._ask(cluster))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def note(self, found: Plan, cluster: Cluster) -> None:
        """On an L4 node, after a pass: what its kernel has now."""
        if self._identity.role != "l4" or not cluster.second_chance.enabled:
            return
        tables = impact.tables(impact.remembering(found.actual, found.desired))
        some = {str(key): table for key, table in tables.items() if key.protocol != "udp" and not key.carries_probes}
        failed = [row.address for row in found.actual if isinstance(row, LocalRoute)]
        at = time.time()
        self._take([generations.now(some, failed, at)], at, cluster)

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What other nodes are told."""
        past = memory.read(self._identity.paths.generations)
        mark = memory.mark(past)
        if query.get("known") == mark:
            return {"mark": mark}
        return {"mark": mark, "past": generations.as_json(past)}

    async def _ask(self, cluster: Cluster) -> None:
        """For ever."""
        names = list(cluster.with_role("l4"))
        self._told = {name: past for name, past in self._told.items() if name in names}
        while True:
            try:
                if await asyncio.to_thread(self._round, cluster, names):
                    self._changed()
            except Exception:  # the next round may do better, and the agent has other things to do
                log.exception("cannot ask the L4 nodes for their tables")
            await asyncio.sleep(ASK_S)

    def _round(self, cluster: Cluster, names: list[str]) -> bool:
        """Asks each once; whether anything is new."""
        pages = {
            name: f"/generations?known={self._marks[name]}" if name in self._marks else "/generations" for name in names
        }
        for name, answer in neighbours.ask_each(cluster, pages).items():
            if "past" in answer:
                with suppress(KeyError, TypeError, ValueError):
                    self._told[name] = generations.from_json(answer["past"])
                    self._marks[name] = str(answer["mark"])
        return self._take(self._told.values(), time.time(), cluster)

    def _take(self, told: Any, at: float, cluster: Cluster) -> bool:
        """Remembers; whether anything is new."""
        path = self._identity.paths.generations
        before = memory.read(path)
        past = generations.merged(before, told, at, cluster.second_chance.keep_s)
        if past == before:
            return False
        try:
            memory.write(path, past)
        except OSError as error:
            self.problem = f"cannot write {path}: {error.strerror}"
            return False
        self.problem = ""
        return True
