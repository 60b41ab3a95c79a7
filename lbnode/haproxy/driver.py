"""HAProxy as rows of state: whether it runs with the generated configuration, what it holds, whether the enabler is up.

The configuration file is the truth (`lbnode.files` writes it after `haproxy -c` accepted it). What of it the running
process can be told is told; the rest takes a reload (docs/adr/0014). The enabler's agent state
is pushed as well, because that takes less than a millisecond instead of the next agent check; lbnode's own responder
answers the same, so both agree.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Event

from lbnode.drivers import Observed, Result
from lbnode.errors import ApplyFailed, LbnodeError, NotReady
from lbnode.haproxy import kept, live, render, statefile
from lbnode.haproxy.configuration import ENABLER
from lbnode.haproxy.live import Live
from lbnode.haproxy.reload import reload, running_digest
from lbnode.haproxy.runtime import NotRunning, Runtime
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import Row, Running, ServerState

_BACKEND_ROWS = "2 -1"  # management manual, `show stat`: type 2 is backends
_IN_PROGRESS = 0x01  # CHK_ST_INPROGRESS in srv_agent_state
_SETTLE_S = 1.0  # twice the enabler's agent-inter, which is also its timeout
_POLL_S = 0.005
BY_RUNTIME = "by the runtime API"


class HaproxyDriver:
    """Implements `lbnode.drivers.Driver`. `wait_s` is how long a supervisor gets to start HAProxy."""

    kinds: tuple[type[Row], ...] = (Running, *live.KINDS, ServerState)

    def __init__(self, paths: Paths, wait_s: float = 5.0) -> None:
        self._paths = paths
        self._wait_s = wait_s
        self._runtime = Runtime(paths.haproxy_socket)
        self._live = Live(self._runtime, paths)

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """What it runs and holds. When it does not run what is wanted, the rest will come with the start or the reload,
        and is shown as it will be. Raises NotReady when it runs and does not answer."""
        digests = {row.config for row in wanted if isinstance(row, Running)}
        try:
            digest = running_digest(self._runtime.info())
            enabler = self._runtime.stat(f"{ENABLER[0]} {_BACKEND_ROWS}") if digest else []
            held, waiting = self._live.rows(wanted) if digest in digests else (live.as_wanted(wanted), [])
        except NotRunning:
            return Observed(tuple(live.as_wanted(wanted)))
        # What the health URI's nbsrv() counts: a server that is down, drained, in maintenance or of weight 0 is not.
        states = [ServerState(*ENABLER, up=row["act"] != "0") for row in enabler]
        return Observed((Running("haproxy", digest), *held, *states), tuple(waiting))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """In the running HAProxy where that can be done, with one reload for all that cannot."""
        results: list[Result] = []
        reloaded = ""
        for change in changes:
            held = isinstance(change.row, live.KINDS)
            if reloaded and held:
                results.append(Result(change, way=reloaded))
                continue
            error, way = self._carried_out(change)
            results.append(Result(change, error, way))
            if not error and way != BY_RUNTIME and (held or isinstance(change.row, Running)):
                reloaded = way
        if any(result.way == BY_RUNTIME and isinstance(result.change.row, live.KINDS) for result in results):
            kept.keep(self._paths)
        return results

    def _carried_out(self, change: Change) -> tuple[str, str]:
        """The error, and the way it was taken."""
        try:
            if isinstance(change.new, Running):
                return "", self._run(change.new, change.reason)
            if isinstance(change.row, live.KINDS):
                return "", self._change(change)
            if isinstance(change.new, ServerState):
                self._set_state(change.new)
            elif isinstance(change.old, Running):
                return "cannot stop HAProxy: lbnode does not supervise it: systemctl stop lbnode-haproxy", ""
        except LbnodeError as error:
            return str(error), ""
        except OSError as error:
            return f"cannot change HAProxy: {error}", ""
        return "", BY_RUNTIME

    def _change(self, change: Change) -> str:
        try:
            self._live.change(change)
        except live.NeedsReload as error:
            self._reload(self._paths.haproxy_config.read_text(encoding="utf-8"))
            return f"by a reload: {error}"
        return BY_RUNTIME

    def _set_state(self, row: ServerState) -> None:
        """All that the responder's answer sets, so that nothing told earlier (drain, 0%) sticks until the next one.

        The answer to a check that is under way may be older than the order and undo it until the next check, so the
        order is given once more when no check is under way.
        """
        self._order(row)
        deadline, pause = time.monotonic() + _SETTLE_S, Event()
        while self._being_checked(row) and time.monotonic() < deadline:
            pause.wait(_POLL_S)
        self._order(row)

    def _order(self, row: ServerState) -> None:
        words = ("state ready", "weight 100%", "agent up") if row.up else ("agent down",)
        for word in words:
            self._runtime.order(f"set server {row.backend}/{row.server} {word}")

    def _being_checked(self, row: ServerState) -> bool:
        states = self._runtime.servers_state(row.backend)
        checks = [int(state["srv_agent_state"]) for state in states if state["srv_name"] == row.server]
        return any(check & _IN_PROGRESS for check in checks)

    def _run(self, wanted: Running, reason: str) -> str:
        """Makes HAProxy run the wanted configuration: its supervisor starts it; one that runs is reloaded when it runs
        something else. Returns the way."""
        file = self._paths.haproxy_config
        config = file.read_text(encoding="utf-8")
        if render.digest(config) != wanted.config:
            raise ApplyFailed(f"cannot run HAProxy: {file} is not the file of this plan")
        way = "by its start"
        if self._running() != wanted.config:
            self._reload(config)
            way = f"by {reason or 'a reload'}"
        else:
            kept.keep(self._paths)
        self._paths.haproxy_parts.write_text(json.dumps(dict(wanted.parts)), encoding="utf-8")
        return way

    def _running(self) -> str:
        """The digest of what runs, as soon as HAProxy answers."""
        deadline, pause = time.monotonic() + self._wait_s, Event()
        while True:
            try:
                return running_digest(self._runtime.info())
            except NotReady as error:
                if time.monotonic() >= deadline:
                    message = "cannot reload HAProxy: it is not running: systemctl start lbnode-haproxy"
                    raise ApplyFailed(message) from error
            pause.wait(_POLL_S)

    def _reload(self, config: str) -> None:
        """Reloads with the states that may survive it. Their file lives no longer than the reload: at any later start
        it would be stale, and it wins over the configuration (haproxy issue 76)."""
        states = self._paths.haproxy_state_file
        fresh = states.with_suffix(".new")
        fresh.write_text(statefile.content(self._runtime.servers_state(), config), encoding="utf-8")
        fresh.replace(states)
        try:
            reload(self._paths)
        except LbnodeError:
            with suppress(LbnodeError):  # it has ended since
                kept.restore(self._paths, running_digest(self._runtime.info()))
            raise
        finally:
            states.unlink(missing_ok=True)
        kept.keep(self._paths)
