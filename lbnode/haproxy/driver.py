"""HAProxy as rows of state: whether it runs with the generated configuration, and whether the enabler is up.

The configuration file is the truth (`lbnode.files` writes it after `haproxy -c` accepted it). The enabler's agent state
is pushed as well, because that takes less than a millisecond instead of the next agent check; lbnode's own responder
answers the same, so both agree.
"""

import time
from collections.abc import Sequence
from threading import Event

from lbnode.drivers import Observed, Result
from lbnode.errors import ApplyFailed, LbnodeError, NotReady
from lbnode.haproxy import render, statefile
from lbnode.haproxy.reload import reload, running_digest
from lbnode.haproxy.runtime import NotRunning, Runtime
from lbnode.haproxy.statefile import ENABLER
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import Row, Running, ServerState

_BACKEND_ROWS = "2 -1"  # management manual, `show stat`: type 2 is backends
_IN_PROGRESS = 0x01  # CHK_ST_INPROGRESS in srv_agent_state
_SETTLE_S = 1.0  # twice the enabler's agent-inter, which is also its timeout
_POLL_S = 0.005


class HaproxyDriver:
    """Implements `lbnode.drivers.Driver`. `wait_s` is how long a supervisor gets to start HAProxy."""

    kinds: tuple[type[Row], ...] = (Running, ServerState)

    def __init__(self, paths: Paths, wait_s: float = 5.0) -> None:
        self._paths = paths
        self._wait_s = wait_s
        self._runtime = Runtime(paths.haproxy_socket)

    def observe(self, wanted: Sequence[Row]) -> Observed:  # noqa: ARG002 - all rows have an owner: the running HAProxy
        """Nothing when HAProxy does not run. Raises NotReady when it runs and does not answer."""
        try:
            digest = running_digest(self._runtime.info())
            enabler = self._runtime.stat(f"{ENABLER[0]} {_BACKEND_ROWS}") if digest else []
        except NotRunning:
            return Observed()
        # What the health URI's nbsrv() counts: a server that is down, drained, in maintenance or of weight 0 is not.
        states = [ServerState(*ENABLER, up=row["act"] != "0") for row in enabler]
        return Observed((Running("haproxy", digest), *states))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        return [Result(change, self._error(change)) for change in changes]

    def _error(self, change: Change) -> str:
        try:
            if isinstance(change.new, Running):
                self._run(change.new.config)
            elif isinstance(change.new, ServerState):
                self._set_state(change.new)
            elif isinstance(change.old, Running):
                return "cannot stop HAProxy: lbnode does not supervise it: systemctl stop lbnode-haproxy"
        except LbnodeError as error:
            return str(error)
        except OSError as error:
            return f"cannot change HAProxy: {error}"
        return ""

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

    def _run(self, wanted: str) -> None:
        """Makes HAProxy run the configuration `wanted`, a digest: its supervisor starts it; one that runs is reloaded
        when it runs something else."""
        file = self._paths.haproxy_config
        config = file.read_text(encoding="utf-8")
        if render.digest(config) != wanted:
            raise ApplyFailed(f"cannot run HAProxy: {file} is not the file of this plan")
        if self._running() != wanted:
            self._reload(config)

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
        finally:
            states.unlink(missing_ok=True)
