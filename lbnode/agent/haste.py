"""What people have set the node to, carried out before the whole picture is looked at: new flows should go elsewhere at
once. The pass that follows finds it done, or does it.
"""

from collections.abc import Sequence
from dataclasses import replace

from lbnode.agent.journal import Journal
from lbnode.drivers import Driver
from lbnode.maintenance.state import READY, AdminState
from lbnode.reconcile import apply, plan
from lbnode.resources import AnnouncedRoute, Announcement
from lbnode.roles.inputs import Desired

TOLD = (Announcement, AnnouncedRoute)


class Haste:
    """Of one node: what it announces."""

    def __init__(self, drivers: Sequence[Driver], journal: Journal) -> None:
        self._drivers, self._journal = drivers, journal
        self._admin: AdminState = READY

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
