"""What people have set the node to, carried out before the whole picture is looked at: new flows should go elsewhere at
once. The pass that follows finds it done, or does it.
"""

from collections.abc import Sequence
from dataclasses import replace

from lbnode.agent.journal import Journal
from lbnode.drivers import Driver
from lbnode.maintenance.state import READY, AdminState
from lbnode.plan import Change
from lbnode.reconcile import apply, plan
from lbnode.resources import AnnouncedRoute, Announcement, ServerState
from lbnode.roles.inputs import Desired

TOLD = (Announcement, AnnouncedRoute)


class Haste:
    """Of one node: an L7 node's health URI, and what a node announces."""

    def __init__(self, drivers: Sequence[Driver], journal: Journal) -> None:
        self._drivers, self._journal = drivers, journal
        self._enabler: ServerState | None = None
        self._admin: AdminState = READY

    def tell_haproxy(self, admin: AdminState) -> None:
        """Makes the health URI say it, when that is another word than the last one. What it says when an agent begins
        is for the first pass to find out."""
        from lbnode.roles.l7 import enabler_of

        wanted, last = enabler_of(admin), self._enabler
        self._enabler = wanted
        if last is None or wanted == last:
            return
        change = Change(last, wanted, str(admin))
        for driver in self._drivers:
            if ServerState in driver.kinds:
                self._journal.made("agent-check", driver.apply([change]))

    def tell_peers(self, admin: AdminState, desired: Desired, whole: bool) -> None:
        """Tells them what `desired` says of announcements, after a change of the admin state. `whole`: all was well
        after the last pass; without that, nothing is announced that is not announced yet.

        Raises LbnodeError when the state cannot be read.
        """
        if admin == self._admin:
            return
        self._admin = admin
        drivers = [driver for driver in self._drivers if set(TOLD) & set(driver.kinds)]
        rows = tuple(row for row in desired.rows if isinstance(row, TOLD))
        found = plan(Desired(rows, desired.reasons), drivers)
        changes = [change for change in found.changes if isinstance(change.row, TOLD)]
        wanted = replace(found, changes=tuple(change for change in changes if whole or change.old is not None))
        if not found.dangers:
            self._journal.made("maintenance", apply(wanted, drivers))
