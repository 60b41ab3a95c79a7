"""The agent's loop. An event only wakes it; every pass reads the files, the health and the system anew.

    files, probes, signals, `lbnode apply`, the resync timer  --wake-->  reload, probe, pass, remember

Subscriptions come before the first pass, so nothing is lost in between. A cluster file with mistakes, a maintenance
file that makes no sense, a change that does not take: each is told in status and log, and the last good state stays.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from lbnode.agent import control, events, pages
from lbnode.agent.drift import mended
from lbnode.agent.enabler import Enabler
from lbnode.agent.generations import Tables
from lbnode.agent.haste import Haste
from lbnode.agent.http import Guests, Site
from lbnode.agent.journal import Journal
from lbnode.agent.leaving import STOPPED, Leaver
from lbnode.agent.pulse import Pulse
from lbnode.agent.source import Source
from lbnode.agent.systemd import notify
from lbnode.chance import program as classifier
from lbnode.config.model import Cluster
from lbnode.decisions import Decisions
from lbnode.errors import LbnodeError
from lbnode.health.monitor import Monitor, Pace
from lbnode.health.state import Probe
from lbnode.lock import exclusive
from lbnode.maintenance import files, responder
from lbnode.maintenance.state import AdminState, Mode
from lbnode.node import Identity, announced_by, announces, drivers, groundwork, note_flaps
from lbnode.plan import Plan
from lbnode.reconcile import Pass, ensure, run
from lbnode.resources import Running, ServerState
from lbnode.roles.inputs import Desired

log = logging.getLogger("lbnode")

RESYNC_S = 5.0
"""Drift is found after at most this many seconds; the promise to operators is 10."""
DRIFT = "drift repaired"
"""The cause of a pass that only the timer began."""
RETRY_S = 1.0
"""After a pass that failed the next one comes this soon."""
SWITCH_S = 0.001
"""How long a pass may keep other threads waiting while it computes: maintenance goes beside it."""


class Agent:
    """One node, kept right. `run` returns after SIGTERM or SIGINT; the data path stays as it is, unless the cluster
    file wants the node to leave first: then a second signal ends that."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._journal = Journal()
        self._drivers = drivers(identity)
        self._enabler: Enabler | None = None
        for place, driver in enumerate(self._drivers):
            if ServerState in driver.kinds:
                self._drivers[place] = self._enabler = Enabler(driver, self._journal)
        self._source = Source(identity)
        self._reading = files.read(identity.paths, identity.role, time.time())
        self._decisions = Decisions(identity)
        self._desired = Desired()
        self._left = Plan()
        self._probes: tuple[Probe, ...] = ()
        self._leaver = Leaver(identity.name)
        self._pulse = Pulse(identity.paths)
        self._stopping = False
        self._since = time.time()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._causes: list[str] = []
        self._stop = asyncio.Event()
        self._monitor = Monitor(lambda: self._rouse("health changed"))
        self._haste = Haste(self._drivers, self._journal)
        self._asking = (self._cluster, Guests(self._cluster, self._cluster.agent_check.allow))
        self._tables = Tables(identity, lambda: self._rouse("L4 nodes' tables changed"))
        made = pages.of(lambda: (self.status(), self._cluster, self._desired), self._tables.page)
        self._site = Site(identity.name, made)

    async def run(self) -> None:
        """Until told to stop. Raises ConfigError when the cluster file is unusable at the start."""
        sys.setswitchinterval(SWITCH_S)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_now)
        loop.add_signal_handler(signal.SIGHUP, self._rouse, "SIGHUP")
        identity = self._identity
        files.forget(identity.paths, STOPPED)
        with events.open_watch(identity.paths) as watch:
            works = (events.follow(watch, self._heed), self._pulse.run(), self._hurry())
            tasks = [asyncio.create_task(work) for work in works]
            servers = [await control.serve(identity.paths, {"status": self.status, "wake": self._woken})]
            if identity.role != "l4":
                servers.append(await responder.serve(self._admin, self._cluster.agent_check.port, self._welcome))
            log.info("agent of %s (%s) begins", identity.name, identity.role)
            try:
                await self._passes()
                self._pulse.stop()  # only one that ends in good order is not missed
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for server in servers:
                    server.close()
                await self._site.close()
                await self._monitor.close()
                await self._tables.close()
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
            **self._journal.as_json(),
            "health": {probe.id: health.as_json() for probe, health in self._monitor.health.items()},
        }
        if announces(identity, self._cluster):
            from lbnode.bgp import report as bgp

            departure = self._leaver.now
            found["leaving"] = departure and departure.as_json()
            found["damped"] = dict(self._decisions.damped)
            found |= bgp.report(self._cluster.bgp, identity.paths)
        if identity.role == "l4":
            found["tables"] = self._left.tables_as_json()
        if identity.role == "l7":
            from lbnode.haproxy import program

            found["haproxy"] = program.seen(identity.paths)
        if identity.role != "l4":
            found["second_chance"] = classifier.seen(identity.paths.bpf)
        return found

    @property
    def _cluster(self) -> Cluster:
        return self._source.cluster

    async def _passes(self) -> None:
        self._rouse("start")
        well, first = True, True
        while not self._stop.is_set():
            self._wake.clear()
            causes, self._causes = self._causes or [DRIFT if well else "tried again"], []
            await self._follow_files()
            well = await asyncio.to_thread(self._pass, ", ".join(dict.fromkeys(causes)))
            notify("READY=1")
            if first:
                # What is there by now stays. Looking it through for garbage takes 30 ms, in which nothing else runs.
                gc.collect()
                gc.freeze()
                first = False
            if self._stopping and self._leaver.done:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._patience(well))

    def _patience(self, well: bool) -> float:
        """Seconds until the next pass, unless something wakes it."""
        rest = RETRY_S if not well or self._decisions.passing else RESYNC_S
        rest = min(rest, self._leaver.patience_s)
        return rest if self._reading.next is None else max(0.0, min(rest, self._reading.next - time.time()))

    async def _follow_files(self) -> None:
        """Takes in what the operator's files say now, and probes what they ask for before deciding on it."""
        self._source.follow(self._journal.tell)
        self._admin()
        await self._tell_haproxy()
        self._journal.tell("metrics", await self._site.follow(self._cluster))
        await self._tables.follow(self._cluster)
        pace, probes = self._cluster.probe, self._decisions.probes(self._cluster)
        if probes != self._probes:
            await asyncio.to_thread(self._prepare)
            self._probes = probes
        await self._monitor.follow(probes, Pace(pace.interval_s, pace.timeout_s, pace.rise, pace.fall, pace.jitter))
        with suppress(TimeoutError):
            # Long enough to find out about a server that does not answer; no longer, whatever happens.
            await asyncio.wait_for(self._monitor.settled(), pace.fall * (pace.interval_s + pace.timeout_s) + 1)

    async def _hurry(self) -> None:
        """Tells HAProxy what people say, also while a pass is under way."""
        while True:
            await self._news.wait()
            self._news.clear()
            self._admin()
            await self._tell_haproxy()

    async def _tell_haproxy(self) -> None:
        if self._enabler is not None:
            await asyncio.to_thread(self._enabler.tell, lambda: self._reading.state)

    def _prepare(self) -> None:
        """Makes what probes need, before the first of them goes out."""
        identity = self._identity
        try:
            with exclusive(identity.paths.lock):
                ensure(groundwork(identity, self._cluster), self._drivers).raise_if_failed()
        except LbnodeError as error:
            self._journal.tell("probes", str(error))
        else:
            self._journal.tell("probes", "")

    def _admin(self) -> Any:
        """The admin state now; the agent-check responder asks for every answer, so it never lags behind the file."""
        self._reading = files.read(self._identity.paths, self._identity.role, time.time(), self._reading.state)
        self._journal.tell("maintenance", self._reading.problem)
        return self._reading.state

    def _pass(self, cause: str) -> bool:
        """One pass, in a thread. Whether all is well afterwards."""
        began = time.time()
        self._pulse.begin()
        try:
            done, drift = self._make_right()
        except LbnodeError as error:
            self._journal.failed(str(error))
            return False
        finally:
            listens = any(row.program == "exabgp" for row in self._desired.rows if isinstance(row, Running))
            self._pulse.end(self._cluster.bgp.dead_man if listens else None)
        if cause == DRIFT and not drift:
            cause = "time has come"  # for a step of a slow start, for a destination or a node that leaves
        self._journal.passed(began, cause, done, drift)
        return not done.errors

    def _make_right(self) -> tuple[Pass, int]:
        """What a pass did, and how much of it was drift."""
        identity, before, admin = self._identity, self._desired, self._reading.state
        with exclusive(identity.paths.lock):
            self._desired = self._decisions.desired(self._cluster, admin, self._monitor.health)
            self._journal.tell("password", self._decisions.problem)
            self._haste.tell_peers(admin, self._desired, whole=not self._left)
            done = run(self._desired, self._drivers, last=self._left)
            note_flaps(identity, self._cluster, admin, self._decisions.announced, self._desired)
        drift = mended(before, self._desired, self._left, done)
        if done.left is not self._left:
            self._tables.note(done.left, self._cluster)
        self._left = done.left
        self._journal.tell("second chance", self._tables.problem)
        if announces(identity, self._cluster):
            self._leaver.follow(self._cluster, admin, len(announced_by(identity, self._cluster)))
        return done, drift

    def _welcome(self, address: object) -> bool:
        """Whether the agent-check responder answers that address."""
        cluster, guests = self._asking
        if cluster is not self._cluster:
            guests = Guests(self._cluster, self._cluster.agent_check.allow)
        self._asking = (self._cluster, guests)
        return address in guests

    def _heed(self, cause: str) -> None:
        self._news.set()
        self._rouse(cause)

    def _rouse(self, cause: str) -> None:
        self._causes.append(cause)
        self._wake.set()

    def _woken(self) -> dict[str, Any]:
        self._rouse("asked")
        return {"ok": True}

    def _stop_now(self) -> None:
        """The first signal lets the node leave, where that is wanted; another one ends the waiting."""
        again, self._stopping = self._stopping, True
        if again or not self._leave_first():
            self._stop.set()
        self._rouse("told to stop")

    def _leave_first(self) -> bool:
        """Begins to leave, where the cluster file wants that of an agent that is stopped."""
        if self._cluster.bgp.on_stop == "keep" or not announces(self._identity, self._cluster):
            return False
        try:
            files.write(self._identity.paths, AdminState(Mode.DRAIN, "drain", reason=STOPPED), this_boot=True)
        except (LbnodeError, OSError) as error:
            log.error("cannot leave first: %s", error)  # noqa: TRY400 - the reason is all there is
            return False
        return True
