"""The disruption experiment: thousands of slow flows, one event at a time, and an exact account of what it broke.

Each event has flows of its own, so that no L4 node knows more of them than it has seen. After the event flows are moved
between the L4 nodes that are left, which must agree on where each belongs; then all is made as it was. Events go
through a `Stack`, moves through the routers (`lbnode.lab.steer`), so the same table is made for every stack.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbnode.lab import programs
from lbnode.lab.account import DATAGRAMS, Account, Flow, FlowReport, Phase, Sample, Story, account
from lbnode.lab.build import build, load
from lbnode.lab.clients.crowd import Crowd
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.events import EVENT, EVENTS, LOOK_S, MOVES, PHASES, RETURN, Event, Play
from lbnode.lab.scenarios.planned import NEW_TICK_S, long_flows, new_requests, tick_s
from lbnode.lab.scenarios.report import Report, expect
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.stacks import Stack
from lbnode.lab.steer import Steer
from lbnode.lab.supervisor import Supervisor
from lbnode.lab.wait import wait_until

FLOWS = 2000
PATIENCE_S = 25.0
SEEN_S = 10.0
SHOWN = 3
HEAD = (
    "event",
    "flows",
    "moved",
    "dead L7's",
    "broken",
    "avoidable",
    *PHASES,
    "longest stall",
    "new",
    "failed",
    "sent on",
)
UDP_HEAD = (
    *("event", "UDP flows", "moved", "broken", "by another server", "avoidable", "datagrams", "lost", "stalled > 1 s"),
    "longest stall",
)


@dataclass(frozen=True)
class Outcome:
    """One event and its account, `udp` that of its flows by UDP alone. `seconds`: how long each phase took; `sent_on`:
    packets that real servers sent on."""

    event: Event
    account: Account
    udp: Account
    seconds: dict[str, float]
    sent_on: int = 0

    @property
    def kept(self) -> bool:
        """Whether nothing broke that need not: that is avoidable at all, for a flow that a live L7 node has."""
        return not self.account.avoidable

    def row(self) -> list[object]:
        counts, told = self.account.by_phase(PHASES), self.account
        broken = [told.opened, told.moved, told.lost, len(told.broken), len(told.avoidable)]
        return [
            *broken,
            *(counts[phase] for phase in PHASES),
            f"{told.longest_stall_s:.1f} s",
            told.requests,
            len(told.failures),
            self.sent_on,
        ]

    def udp_row(self) -> list[object]:
        told = self.udp
        flows = [told.opened, told.moved, len(told.broken), told.elsewhere, len(told.avoidable)]
        return [*flows, told.datagrams, told.datagrams_lost, told.stalled, f"{told.longest_stall_s:.1f} s"]

    def as_json(self) -> dict[str, Any]:
        seconds = {phase: round(value, 1) for phase, value in self.seconds.items()}
        by_phase = {"avoidable_by_phase": self.account.by_phase(PHASES)}
        return {
            "event": self.event.name,
            "title": self.event.title,
            "kept": self.kept,
            "seconds": seconds,
            "sent_on": self.sent_on,
            **by_phase,
            **self.account.as_json(),
            "udp": self.udp.as_json(),
        }


@dataclass(frozen=True)
class Order:
    """What to do: how many flows, which events."""

    flows: int = FLOWS
    events: tuple[Event, ...] = EVENTS


def chosen(names: Sequence[str]) -> tuple[Event, ...]:
    """The events of these names, all when there are none. Raises LabError."""
    known = {event.name: event for event in EVENTS}
    if unknown := [name for name in names if name not in known]:
        raise LabError(f"cannot find event {', '.join(unknown)}: there are {', '.join(known)}")
    return tuple(known[name] for name in names) or EVENTS


def run(folder: Path, scale: str, work: Path, stack: Stack, order: Order) -> list[Outcome]:
    """Brings a topology up with a stack, goes through the events, prints the table, writes
    `<work>/disruption-<stack>.json`. Raises LabError."""
    report = Report()
    topology = load(folder, scale)
    if not topology.with_role("l4") or not topology.with_role("l7"):
        raise LabError(f"cannot disrupt {topology.name}: the experiment is about L4 and L7 nodes, and it has none")
    report.line(f"{topology.title}; {stack.name}; {order.flows} flows per event; logs in {work / 'logs'}")
    with build(topology, work) as lab, Supervisor(lab.logs) as supervisor:
        programs.start_network(lab, supervisor)
        with Crowd(lab.nodes[topology.clients.name], lab.logs / "users.log") as crowd:
            stage = Stage(lab, supervisor, {topology.clients.name: crowd}, report)
            *used, spare = stage.l7
            play = Play(stage, stack, tuple(used), spare)
            with report.step(f"{stack.name} on {len(stage.l4)} L4 and {len(used)} L7 nodes, {spare} stands by"):
                stack.start(stage, used)
            outcomes = []
            for event in order.events:
                with report.step(event.title):
                    outcomes.append(Experiment(play, event).run(order.flows))
                    _tell(report, outcomes[-1])
            stage.close()
    report.line(f"{stack.name}: avoidable breaks are those of flows whose real server was alive and in reach")
    report.table(HEAD, {outcome.event.title: outcome.row() for outcome in outcomes})
    if stage.echoes:
        report.line("of these, the flows by UDP, which no event has taken the server of")
        report.table(UDP_HEAD, {outcome.event.title: outcome.udp_row() for outcome in outcomes})
    report.line(f"all of it took {report.seconds:.0f} s")
    found = {"stack": stack.name, "topology": topology.name, "scale": scale, "flows": order.flows}
    told = {**found, "seconds": round(report.seconds), "events": [outcome.as_json() for outcome in outcomes]}
    result_file(work, stack.name).write_text(json.dumps(told, indent=1) + "\n")
    return outcomes


def result_file(work: Path, stack: str) -> Path:
    return work / f"disruption-{stack}.json"


def _tell(report: Report, outcome: Outcome) -> None:
    told = outcome.account
    times = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in outcome.seconds.items())
    report.found(
        f"{told.opened} flows, {told.moved} moved: {len(told.broken)} broken, {len(told.avoidable)} avoidable;"
        f" longest stall {told.longest_stall_s:.1f} s; {len(told.failures)} of {told.requests} new requests failed;"
        f" {times}"
    )
    for flow in (*told.avoidable[:SHOWN], *told.failures[:SHOWN]):
        report.found(f"  {flow}")


class Experiment:
    """One event, from the opening of its flows to their account."""

    def __init__(self, play: Play, event: Event) -> None:
        self.play = play
        self.event = event
        self.stage = play.stage
        self._flows: list[Flow] = []
        self._samples: list[Sample] = []
        self._phases: list[Phase] = []

    def run(self, count: int) -> Outcome:
        """Raises LabError when the network does not do what it is told."""
        play, event = self.play, self.event
        play.outages.clear()
        event.prepare(play)
        sent_on = self.stage.sent_on()
        self._open(count)
        self._phase(EVENT)
        event.do(play)
        self._met()
        self._phase(MOVES)
        self._move()
        self._phase(RETURN)
        if not event.alone:
            event.undo(play)
            self._met()
        reports = self._close()
        sent_on = self.stage.sent_on() - sent_on
        story = Story(self._samples, self._phases, play.outages)
        ends = [*(phase.began for phase in self._phases[1:]), time.monotonic()]
        seconds = {phase.name: end - phase.began for phase, end in zip(self._phases, ends, strict=True)}
        if event.alone:
            event.undo(play)
        by_udp = [report for report in reports if report.kind == DATAGRAMS]
        return Outcome(event, account(reports, story), account(by_udp, story), seconds, sent_on)

    def _open(self, count: int) -> None:
        stage = self.stage
        reports = stage.crowd.start("long", long_flows(stage, count), tick_s(count), PATIENCE_S)
        self._flows = [report.flow for report in reports]
        stage.crowd.start("new", new_requests(stage), NEW_TICK_S)
        bad = [report for report in reports if report.broken]
        expect(not bad, f"{count} flows opened", f"{len(bad)} were not, such as {bad[:1]}")
        # A table that changes while it is read may leave a row out: the kernel counts rows to find where it was.
        wait_until(self._all_seen, SEEN_S, "every flow in the table of an L4 node", LOOK_S)

    def _close(self) -> list[FlowReport]:
        new = self.stage.crowd.finish("new")
        reports = self.stage.crowd.finish("long") + new
        self._sample()
        return reports

    def _phase(self, name: str) -> None:
        if self._phases:
            self._sample()
        self._phases.append(Phase(name, time.monotonic(), self.event.title))

    def _all_seen(self) -> bool:
        """Whether the samples so far have a place for every flow, after another one."""
        self._sample()
        return all(any(sample.places(flow) for sample in self._samples) for flow in self._flows)

    def _sample(self) -> None:
        known = set(self._flows)
        tables = {
            name: {
                flow: self.stage.name_of(real)
                for flow, real in sight.connections(self.stage.node(name)).items()
                if flow in known
            }
            for name in self.stage.l4
        }
        self._samples.append(Sample(time.monotonic(), tables))

    def _met(self) -> None:
        """Waits until every flow has met what is there now; flows of dead machines may wait for ever."""
        story = Story(self._samples, self._phases, self.play.outages)
        dead = [place for place, flow in enumerate(self._flows) if story.is_lost(story.holder(flow), flow)]
        self.stage.crowd.meet("long", dead)

    def _move(self) -> None:
        """Takes one L4 node out of the routers' choice, then another, then none."""
        stage = self.stage
        carriers = {name for router in stage.routes for vip in stage.vips for name in stage.carriers(router, vip)}
        with Steer(stage.lab) as steer:
            for left_out in (min(carriers), max(carriers)):
                steer.over(carriers - {left_out})
                self._met()
        self._met()
