"""What `anycast-two-routers` must show: a service behind two routers is answered by both of its servers, and by the one
that is left when a router, its cable or a server stops."""

from collections import Counter
from collections.abc import Callable
from functools import partial

from lbnode.lab import links, outage
from lbnode.lab.clients.crowd import pairs
from lbnode.lab.programs import WEB
from lbnode.lab.scenarios import anycast
from lbnode.lab.scenarios.anycast import expect_answers, shares, switched, until_announced, until_carried
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.scenario import Scenario, Step, once
from lbnode.lab.scenarios.stage import Stage

CORE = "cr1"
BEHIND = {"r2": "s1", "r3": "s2"}
EACH = 20

Order = tuple[str, Callable[[], object]]
"""Something that is done, and its words."""


def both(stage: Stage) -> None:
    """Requests by each user, one after the other: now s1 answers, now s2."""
    until_carried(stage, CORE, BEHIND)
    for user in stage.lab.topology.users:
        asks = pairs(stage.vips, user.every_address)
        replies = stage.crowds[user.name].ask([ask for ask in asks for _ in range(EACH)])
        names = [reply.backend for reply in replies]
        expect(set(names) == set(stage.announcers), f"answers from both for {user.name}", names)
        counts = Counter(names)
        stage.report.found(f"{user.name}: {shares(counts)}; the first ten by {' '.join(names[:10])}")


def suspended(router: str) -> Callable[[Stage], None]:
    """A router is suspended, as a virtual machine is: nobody is told, it is missed when the hold time is over."""

    def show(stage: Stage) -> None:
        def stop() -> None:
            outage.suspend(stage.lab, stage.supervisor, router)

        def go_on() -> None:
            outage.resume(stage.lab, stage.supervisor, router)

        _without(stage, router, (f"{router} suspended", stop), ("resumed", go_on))

    return show


def cut(stage: Stage) -> None:
    """The cable between cr1 and r3 is pulled: cr1 sees it at once."""
    cable = partial(links.state, stage.node("r3"), "right")
    _without(stage, "r3", ("cable of r3 pulled", partial(cable, up=False)), ("plugged in", partial(cable, up=True)))


def server_dies(stage: Stage) -> None:
    """The web server of s1 is killed: lbnode's check withdraws its VIPs, and r2 is of no use to cr1 any more."""
    stop, start = partial(stage.knock_out, "s1", WEB), partial(stage.revive, "s1", WEB)
    _without(stage, "r2", ("web server of s1 killed", stop), ("started", start))


def _without(stage: Stage, router: str, out: Order, again: Order) -> None:
    """Takes the way by one router out under requests, and lets it come back: who answers, and what is lost."""
    other = next(name for name in BEHIND if name != router)
    for (what, order), hops in ((out, [other]), (again, [*BEHIND])):
        seconds, felt = switched(stage, order, CORE, hops)
        servers = [BEHIND[hop] for hop in hops]
        until_announced(stage, servers)
        counts = expect_answers(stage, servers, EACH)
        stage.report.found(f"{what} -> {' and '.join(hops)} in the kernel of {CORE}: {seconds * 1000:.0f} ms")
        stage.report.found(f"{felt}; then {shares(counts)}")


STEPS = (
    Step("both", "requests by u1 and u2", once(both)),
    Step("r2", "r2 is suspended, and resumed", once(suspended("r2"))),
    Step("r3", "r3 is suspended, and resumed", once(suspended("r3"))),
    Step("cable", "the cable of r3 is pulled, and plugged in", once(cut)),
    Step("killed", "the web server of s1 is killed, and started", once(server_dies)),
)
SCENARIO = Scenario(STEPS, anycast.play)
