"""The agent's loop. An event only wakes it; every pass reads the files, the health and the system anew.

    files, probes, signals, `lbnode apply`, the resync timer  --wake-->  reload, probe, pass, remember

Subscriptions come before the first pass, so nothing is lost in between. A cluster file with mistakes, a maintenance
file that makes no sense, a change that does not take: each is told in status and log, and the last good state stays.
"""

import asyncio
import logging
import os
import signal
import time
from collections import deque
from contextlib import suppress
from typing import Any

from lbnode.agent import control, events, pages
from lbnode.agent.drift import mended
from lbnode.agent.http import Site
from lbnode.agent.metrics import Counts
from lbnode.agent.systemd import notify
from lbnode.config.model import Cluster
from lbnode.errors import ConfigError, LbnodeError
from lbnode.health.monitor import Monitor, Pace
from lbnode.health.state import Probe
from lbnode.lock import exclusive
from lbnode.maintenance import files, responder
from lbnode.node import Decisions, Identity, announces, drivers, groundwork, load_cluster
from lbnode.plan import Plan
from lbnode.reconcile import Pass, ensure, run
from lbnode.roles.inputs import Desired

log = logging.getLogger("lbnode")

RESYNC_S = 5.0
"""Drift is found after at most this many seconds; the promise to operators is 10."""
DRIFT = "drift repaired"
"""The cause of a pass that only the timer began."""
RETRY_S = 1.0
"""After a pass that failed the next one comes this soon."""
TOLD = 500
"""So many changes of one pass are logged one by one: a large table that is made at once is some 100,000."""


class Agent:
    """One node, kept right. `run` returns after SIGTERM or SIGINT; the data path stays as it is."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._drivers = drivers(identity)
        self._cluster: Cluster = load_cluster(identity)
        self._cluster_stamp = self._stamp()
        self._reading = files.read(identity.paths, identity.role, time.time())
        self._decisions = Decisions(identity)
        self._desired = Desired()
        self._left = Plan()
        self._probes: tuple[Probe, ...] = ()
        self._problems: dict[str, str] = {}
        self._recent: deque[dict[str, Any]] = deque(maxlen=100)
        self._last: dict[str, Any] = {}
        self._counts = Counts()
        self._since = time.time()
        self._wake = asyncio.Event()
        self._causes: list[str] = []
        self._stop = asyncio.Event()
        self._monitor = Monitor(lambda: self._rouse("health changed"))
        self._site = Site(identity.name, pages.of(lambda: (self.status(), self._cluster, self._desired)))

    async def run(self) -> None:
        """Until told to stop. Raises ConfigError when the cluster file is unusable at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_now)
        loop.add_signal_handler(signal.SIGHUP, self._rouse, "SIGHUP")
        identity = self._identity
        with events.open_watch(identity.paths) as watch:
            watching = asyncio.create_task(events.follow(watch, self._rouse))
            servers = [await control.serve(identity.paths, {"status": self.status, "wake": self._woken})]
            if identity.role != "l4":
                servers.append(await responder.serve(self._admin, self._cluster.agent_check.port))
            log.info("agent of %s (%s) begins", identity.name, identity.role)
            try:
                await self._passes()
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
                for server in servers:
                    server.close()
                await self._site.close()
                await self._monitor.close()
                identity.paths.agent_socket.unlink(missing_ok=True)
        log.info("agent ends; the data path stays as it is")

    def status(self) -> dict[str, Any]:
        """What this node does and why, as JSON."""
        identity = self._identity
        found: dict[str, Any] = {
            "node": identity.name,
            "role": identity.role,
            "agent": {"pid": os.getpid(), "since": self._since},
            "admin": str(self._reading.state),
            "admin_mode": str(self._reading.state.mode),
            "admin_next": self._reading.next,
            "verdicts": [verdict.as_json() for verdict in self._desired.verdicts],
            "last_pass": self._last,
            "counts": dict(self._counts.__dict__),
            "problems": [f"{where}: {text}" for where, text in dict(self._problems).items()],
            "recent": list(self._recent),
            "health": {probe.id: health.as_json() for probe, health in self._monitor.health.items()},
        }
        if announces(identity, self._cluster):
            from lbnode.bgp.driver import peers

            found["peers"] = peers(identity.paths)
        if identity.role == "l4":
            found["tables"] = self._left.tables_as_json()
        return found

    async def _passes(self) -> None:
        self._rouse("start")
        well = True
        while not self._stop.is_set():
            self._wake.clear()
            causes, self._causes = self._causes or [DRIFT if well else "tried again"], []
            await self._follow_files()
            well = await asyncio.to_thread(self._pass, ", ".join(dict.fromkeys(causes)))
            notify("READY=1")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._patience(well))

    def _patience(self, well: bool) -> float:
        """Seconds until the next pass, unless something wakes it."""
        rest = RETRY_S if not well or self._decisions.passing else RESYNC_S
        return rest if self._reading.next is None else max(0.0, min(rest, self._reading.next - time.time()))

    async def _follow_files(self) -> None:
        """Takes in what the operator's files say now, and probes what they ask for before deciding on it."""
        stamp = self._stamp()
        if stamp != self._cluster_stamp:
            self._cluster_stamp = stamp
            self._reload()
        self._admin()
        self._tell("metrics", await self._site.follow(self._cluster))
        pace, probes = self._cluster.probe, self._decisions.probes(self._cluster)
        if probes != self._probes:
            await asyncio.to_thread(self._prepare)
            self._probes = probes
        await self._monitor.follow(probes, Pace(pace.interval_s, pace.timeout_s, pace.rise, pace.fall, pace.jitter))
        with suppress(TimeoutError):
            # Long enough to find out about a server that does not answer; no longer, whatever happens.
            await asyncio.wait_for(self._monitor.settled(), pace.fall * (pace.interval_s + pace.timeout_s) + 1)

    def _prepare(self) -> None:
        """Makes what probes need, before the first of them goes out."""
        identity = self._identity
        try:
            with exclusive(identity.paths.lock):
                ensure(groundwork(identity, self._cluster), self._drivers).raise_if_failed()
        except LbnodeError as error:
            self._tell("probes", str(error))
        else:
            self._tell("probes", "")

    def _reload(self) -> None:
        try:
            self._cluster = load_cluster(self._identity)
        except LbnodeError as error:
            count = f"{len(error.problems)} problems, " if isinstance(error, ConfigError) else ""
            self._tell("cluster file", f"{count}the last good one stays in force:\n{error}")
        else:
            self._tell("cluster file", "")
            log.info("cluster file taken in")

    def _admin(self) -> Any:
        """The admin state now; the agent-check responder asks for every answer, so it never lags behind the file."""
        self._reading = files.read(self._identity.paths, self._identity.role, time.time(), self._reading.state)
        self._tell("maintenance", self._reading.problem)
        return self._reading.state

    def _pass(self, cause: str) -> bool:
        """One pass, in a thread. Whether all is well afterwards."""
        identity = self._identity
        began, before = time.time(), self._desired
        try:
            with exclusive(identity.paths.lock):
                self._desired = self._decisions.desired(self._cluster, self._reading.state, self._monitor.health)
                self._tell("password", self._decisions.problem)
                done = run(self._desired, self._drivers, last=self._left)
        except LbnodeError as error:
            self._counts.add(None)
            self._tell("pass", str(error))
            return False
        drift = mended(before, self._desired, self._left, done)
        if cause == DRIFT and not drift:
            cause = "time has come"  # for a step of a slow start, or for a destination that has left
        self._counts.add(done, drift)
        self._left = done.left
        self._remember(cause, done)
        self._tell("pass", "; ".join(done.errors))
        self._last = {
            "at": began,
            "seconds": round(time.time() - began, 4),
            "cause": cause,
            "changes": len(done.plan.changes),
            "foreign": list(done.left.foreign),
            "waiting": list(done.left.waiting),
        }
        return not done.errors

    def _remember(self, cause: str, done: Pass) -> None:
        """Tells what was done; what failed is told once, as a problem, however often it is tried again."""
        made = [result for result in done.results if not result.error]
        for result in made[:TOLD]:
            log.info("%s: %s", cause, result)
            self._recent.append({"at": time.time(), "cause": cause, "change": str(result)})
        if len(made) > TOLD:
            log.info("%s: and %d changes more", cause, len(made) - TOLD)

    def _tell(self, where: str, text: str) -> None:
        """Keeps a problem in status while it lasts; logs it when it comes, changes, and goes."""
        if text == self._problems.get(where, ""):
            return
        if text:
            self._problems[where] = text
            log.error("%s: %s", where, text)
        else:
            del self._problems[where]
            log.info("%s: in order again", where)

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._identity.paths.cluster_file.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _rouse(self, cause: str) -> None:
        self._causes.append(cause)
        self._wake.set()

    def _woken(self) -> dict[str, Any]:
        self._rouse("asked")
        return {"ok": True}

    def _stop_now(self) -> None:
        self._stop.set()
        self._wake.set()
