"""What the labs without tiers 2 and 3 have in common: servers that announce their VIPs themselves, routers that spread
flows over them, and clients that notice what happens to either."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from types import MappingProxyType

from lbnode.lab import programs, routing
from lbnode.lab.account import FlowReport
from lbnode.lab.build import BIRD_CONF, BIRD_SOCKET, RUN, templates
from lbnode.lab.clients.crowd import Crowd, pairs
from lbnode.lab.scenarios.network import PORT
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.scenario import Steps, show
from lbnode.lab.scenarios.stage import Stage

STARTED_S = 150.0
DEADLINE_S = 30.0
SICK = RUN / "sick"
"""While a server has this file, its health page fails; all else it serves as before."""

GROUP = "anycast"
CLIENTS, TICK_S, PATIENCE_S = 16, 0.25, 2.0
"""So many clients at a time make a request so often, each on a new connection, and wait so long for the answer."""


def play(stage: Stage, steps: Steps, rounds: int) -> None:
    """Everything is announced and answers; then the steps."""
    programs.start_nodes(stage.lab, stage.supervisor)
    with stage.report.step("agents on every server"):
        converge(stage)
    show(stage, steps, rounds)


def converge(stage: Stage) -> None:
    seconds = stage.wait(
        lambda: all(announced(stage, name) for name in stage.announcers), STARTED_S, "every VIP by every server"
    )
    stage.wait(lambda: all_answer(stage), STARTED_S, "an answer from every VIP")
    words = "; ".join(
        f"{router}: {', '.join(sorted(stage.carriers(router, stage.vips[0])))}" for router in stage.routes
    )
    stage.report.found(f"every server's announcements are in the kernels of its routers, after {seconds:.1f} s more")
    stage.report.found(f"next hops of {stage.vips[0]}: {words}")


def all_answer(stage: Stage) -> bool:
    return all(reply.status == 200 for crowd, asks in _asks(stage, 1) for reply in crowd.ask(asks))


def announced(stage: Stage, name: str) -> bool:
    """Whether every router that a server has sessions with sends it all that it announces."""
    return all(name in stage.carriers(router, vip) for router, vip in _told(stage, name))


def withdrawn(stage: Stage, name: str) -> bool:
    """Whether none of them sends it anything any more."""
    return not any(name in stage.carriers(router, vip) for router, vip in _told(stage, name))


def _told(stage: Stage, name: str) -> list[tuple[str, str]]:
    """(router, VIP) for every session of a server."""
    topology = stage.lab.topology
    services = topology.cluster.announced_by(name).values()
    vips = [str(vip) for service in services for vip in service.vips]
    return [
        (router, vip)
        for router in stage.routes
        for session in routing.sessions(topology, router)
        if session.client and session.name == name
        for vip in vips
        if session.version == (6 if ":" in vip else 4)
    ]


def until_announced(stage: Stage, names: Sequence[str]) -> float:
    what = f"every VIP by {', '.join(names)}"
    return until(stage, lambda: all(announced(stage, name) for name in names), what)


def until_withdrawn(stage: Stage, names: Sequence[str]) -> float:
    what = f"no VIP by {', '.join(names)}"
    return until(stage, lambda: all(withdrawn(stage, name) for name in names), what)


def until(stage: Stage, condition: Callable[[], object], what: str) -> float:
    """Waits; returns how many seconds that took."""
    return stage.wait(condition, DEADLINE_S, what)


def until_carried(stage: Stage, router: str, names: Iterable[str]) -> float:
    """Until a router's kernel has exactly these next hops for every VIP."""
    wanted = set(names)
    return until(
        stage,
        lambda: all(stage.carriers(router, vip) == wanted for vip in stage.vips),
        f"{', '.join(sorted(wanted)) or 'nobody'} as the next hops of every VIP on {router}",
    )


def _asks(stage: Stage, each: int) -> list[tuple[Crowd, list[tuple[str, str]]]]:
    """For the clients of each machine: `each` times (source, VIP)."""
    found = []
    for user in stage.lab.topology.users:
        asks = pairs(stage.vips, user.every_address)
        found.append((stage.crowds[user.name], [ask for ask in asks for _ in range(each)]))
    return found


def heard(stage: Stage, each: int) -> Counter[str]:
    """Who answers `each` requests from every client address to every VIP of its family. All must be answered."""
    replies = [reply for crowd, asks in _asks(stage, each) for reply in crowd.ask(asks)]
    bad = [reply for reply in replies if reply.status != 200]
    expect(not bad, f"all of {len(replies)} requests answered", f"{len(bad)} were not, such as {bad[:1]}")
    return Counter(reply.backend for reply in replies)


def expect_answers(stage: Stage, names: Iterable[str], each: int = 4) -> Counter[str]:
    """Requires that exactly these servers answer."""
    counts = heard(stage, each)
    wanted = set(names)
    expect(set(counts) == wanted, f"answers from {', '.join(sorted(wanted))} and no others", dict(counts))
    return counts


def shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{name} {counts[name]} ({100 * counts[name] / total:.0f} %)" for name in sorted(counts))


def reconfigure(stage: Stage, router: str, template: str) -> None:
    """Gives a router's BIRD another configuration, from a template of the topology."""
    topology = stage.lab.topology
    sources = templates(topology.folder.parent, topology.folder)
    give_bird(stage, router, routing.config(sources, template, topology, router, RUN))


def give_bird(stage: Stage, name: str, text: str) -> None:
    """Another configuration, which BIRD takes while it runs."""
    node = stage.node(name)
    node.write(BIRD_CONF, text)
    done = node.run(["birdc", "-s", str(BIRD_SOCKET), "configure"])
    taken = ("Reconfigured", "Reconfiguration in progress")
    expect(any(word in done.stdout for word in taken), f"BIRD on {name} takes it", done.stdout)


@dataclass(frozen=True)
class Felt:
    """What requests met while something happened. `last_s`: when the last one that failed was sent, seconds after the
    event; `slowest_s`: how long the one waited that was answered last. `why`: reason -> how many failed."""

    answered: int
    failed: int
    last_s: float
    slowest_s: float
    why: Mapping[str, int]

    def __str__(self) -> str:
        text = f"{self.answered} requests answered, {self.failed} failed"
        if self.failed:
            reasons = ", ".join(f"{count} {why}" for why, count in self.why.items())
            text += f" ({reasons}), the last of them sent {self.last_s:.1f} s after"
        return f"{text}; slowest answer {self.slowest_s:.2f} s"


class Requests:
    """Requests by all clients, each on a connection of its own, from now on until `felt` is asked for."""

    def __init__(self, stage: Stage, vips: Sequence[str] = ()) -> None:
        self._crowds = list(stage.crowds.values())
        for user in stage.lab.topology.users:
            asks = pairs(vips or stage.vips, user.every_address)
            count = max(1, CLIENTS // len(self._crowds))
            flows = [("short", source, vip, PORT) for source, vip in islice(cycle(asks), count)]
            stage.crowds[user.name].start(GROUP, flows, TICK_S, PATIENCE_S)
        self._began = time.monotonic()

    def felt(self) -> Felt:
        """Ends them."""
        reports: list[FlowReport] = [report for crowd in self._crowds for report in crowd.finish(GROUP)]
        failures = [failure for report in reports for failure in report.failures]
        return Felt(
            sum(report.rounds for report in reports),
            len(failures),
            max((at - self._began for at, _, _ in failures), default=0.0),
            max((report.stall_s for report in reports), default=0.0),
            MappingProxyType(Counter(why for _, _, why in failures)),
        )


def switched(
    stage: Stage, what: Callable[[], object], router: str, names: Iterable[str], asked: Sequence[str] = ()
) -> tuple[float, Felt]:
    """Does something under requests, to the VIPs if nothing else is asked. Returns how many seconds after it a router
    had exactly these next hops, and what the requests met."""
    requests = Requests(stage, asked)
    began = time.monotonic()
    what()
    until_carried(stage, router, names)
    seconds = time.monotonic() - began
    return seconds, requests.felt()
