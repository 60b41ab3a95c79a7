"""What is known of one real server, on both axes: what people want of it, and what probes found. PURE."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lbnode.health.state import Health, Probe
from lbnode.maintenance.state import READY, AdminState, Mode


@dataclass(frozen=True)
class Standing:
    """One real server in one family: what people want, what probes found, what follows.

    There are two ways to leave. Who drains, and who says that it cannot serve, takes no new flows and keeps the old
    ones. Who is *failed*, because people say so or because nothing comes back from it, has them ended.
    """

    admin: AdminState
    up: bool
    reason: str
    gone: bool = False
    back_for_s: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the flows it has are to end at their next packet. A server that answers, be it with 503 or with a
        refused connection, ends its flows itself or still serves them: a drained L7 node's health URI is 503, and stays
        so for a moment after it is ready again."""
        return self.admin.mode is Mode.MAINT or self.gone

    @property
    def wanted(self) -> bool:
        """Whether people want it to serve."""
        return self.admin.mode is Mode.READY and self.admin.percent > 0

    def share(self, full: int) -> int:
        """The weight it holds its place in the Maglev table with, out of `full`, its weight in the cluster file."""
        # In tenths: the kernel cuts the greatest common divisor of all weights into at most 64 steps, and one server
        # at 99 among 30 at 100 would move a quarter of everybody's new flows. A share of 0 keeps the place.
        tenths = max(1, round(self.admin.percent / 10)) if self.admin.percent else 10
        return max(1, full * tenths // 10)


def standing(health: Mapping[Probe, Health], asked: Iterable[Probe], agent: Probe, ended: bool = False) -> Standing:
    """Both axes of one real server. `ended`: its flows are being ended now, by a local route to its address.

    What is not known yet counts as up: an L4 node that has just started must not empty a table that works. It is gone
    when nothing comes back from it, neither by the tunnel nor to the agent-check at its own address. While its flows
    are being ended, probes through the tunnel end on this node; then the agent-check alone tells whether it is back,
    and until it does, it is not.
    """
    answers = [health.get(probe, Health()) for probe in asked]
    word = health.get(agent, Health())
    admin = word.admin or READY
    down = [answer for answer in answers if answer.up is False]
    if ended:
        gone = word.silent or word.up is None
    else:
        gone = bool(down) and word.silent and all(answer.silent for answer in answers)
    back = [answer.back_for_s for answer in answers if answer.back_for_s is not None]
    return Standing(admin, not down and not gone, _reason(admin, down or answers, gone), gone, min(back, default=None))


def _reason(admin: AdminState, answers: list[Health], gone: bool) -> str:
    found = answers[0] if answers else Health()
    if admin.mode is not Mode.READY:
        return f"{admin} on the node itself" + (f", and then {found.reason}" if gone else "")
    share = f", {admin.percent}% asked for" if admin.percent != 100 else ""
    return f"{'down' if gone or found.up is False else 'up'}: {found.reason}{share}"
