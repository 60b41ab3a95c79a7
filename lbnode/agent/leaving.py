"""What the agent knows of its node's departure: the phase, and, once the VIPs are withdrawn, whether packets still
come."""

import logging
import time
from math import inf

from lbnode.config.model import Cluster
from lbnode.errors import LbnodeError
from lbnode.maintenance import flows
from lbnode.maintenance.calm import Calm
from lbnode.maintenance.departure import Departure, Phase, departure
from lbnode.maintenance.state import AdminState
from lbnode.plan import counted

log = logging.getLogger("lbnode")

LOOK_S = 1.0
"""So often packets are counted."""
STOPPED = "the agent was told to stop"
"""Why a node leaves for this boot; an agent that begins takes that back."""


class Leaver:
    """Follows one node; `now` is what it found last, None while the node is in service."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._packets: flows.Since | None = None
        self._calm = Calm(flows.QUIET_S)
        self._traffic: str | None = None
        self._quiet = False
        self.now: Departure | None = None

    def follow(self, cluster: Cluster, admin: AdminState, announced: int) -> None:
        """Once a second or so, and after each pass; `announced`: how many VIPs still are."""
        rule, now = cluster.bgp.leaving, time.time()
        found = departure(admin, rule, now, announced, self._traffic, self._quiet)
        if found is None or found.phase is Phase.STEP:
            self._rest()
        elif found.phase is Phase.WITHDRAWN:
            self._look(cluster)
            found = departure(admin, rule, now, announced, self._traffic, self._quiet)
        if (found and found.phase) != (self.now and self.now.phase):
            log.info("leaving: %s", found or "no more, the node is in service again")
        self.now = found
        if found is not None and found.phase is Phase.GONE:
            self._close()

    @property
    def patience_s(self) -> float:
        """Seconds until the next look; for ever when nothing is to be seen."""
        if self.now is None or self.now.phase is Phase.GONE:
            return inf
        left = LOOK_S if self.now.until is None else self.now.until - time.time()
        if left <= 0:  # the step is over, and the withdrawal does not take
            return LOOK_S
        return left if self.now.phase is Phase.STEP else min(LOOK_S, left)

    @property
    def done(self) -> bool:
        """Whether the node has left."""
        return self.now is not None and self.now.phase is Phase.GONE

    def _look(self, cluster: Cluster) -> None:
        try:
            if self._packets is None:
                self._packets = flows.last_packets(cluster, self._name)
            fresh = self._packets.fresh()
        except LbnodeError as error:
            self._traffic = str(error)
            return
        self._traffic = f"{counted(fresh, 'packet')} since the last look" if fresh else "none since the last look"
        self._quiet = self._calm.take(fresh, time.monotonic())

    def _rest(self) -> None:
        self._close()
        self._calm, self._traffic, self._quiet = Calm(flows.QUIET_S), None, False

    def _close(self) -> None:
        if self._packets is not None:
            self._packets.close()
            self._packets = None
