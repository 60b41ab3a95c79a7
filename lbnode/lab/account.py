"""What became of the clients' connections, and whether it had to be so. PURE.

Three things are put together: what each client saw of its own connection (`FlowReport`), what the L4 nodes' connection
tables said at some moments (`Sample`), and what was done to the network when (`Phase`, `Outage`). All times are of one
monotonic clock, in seconds.

A flow is held by the real server that the first sample has it on. It is *avoidable* that it broke unless that server
was dead or out of reach when it did, or had been since the flow began: then nobody could have kept it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STALLED_S = 1.0
SHOWN_STALLS = 10
SHORT, DATAGRAMS = "short", "datagrams"
UNKNOWN = "?"


@dataclass(frozen=True)
class Flow:
    """One client's connection, as all the nodes see it: with the service's port, its 5-tuple."""

    source: str
    port: int
    vip: str
    protocol: str = "tcp"


@dataclass(frozen=True)
class FlowReport:
    """What became of one flow. `port` is the client's; `moved` counts bytes; `broken` is empty while all is well.

    `stall_s` is the longest time without progress when progress was due, which began at `stall_at`; `stopped_at` is
    since when a flow that broke had not got on. `failures` are those of short requests: (time, port, reason). `rounds`
    counts files, bodies, requests or datagrams with an answer, each checked; `lost` datagrams without one. `other` is
    who answered datagrams in place of `backend`, and may be the same name when it had been started anew.
    """

    kind: str
    source: str
    port: int
    vip: str
    vip_port: int
    backend: str
    moved: int
    rounds: int
    broken: str
    ended: bool
    broken_at: float
    stopped_at: float
    stall_s: float
    stall_at: float
    failures: tuple[tuple[float, int, str], ...] = ()
    lost: int = 0
    other: str = ""

    @property
    def flow(self) -> Flow:
        return Flow(self.source, self.port, self.vip, "udp" if self.kind == DATAGRAMS else "tcp")


@dataclass(frozen=True)
class Sample:
    """The L4 nodes' connection tables at one moment: L4 node -> flow -> name of the real server."""

    at: float
    tables: Mapping[str, Mapping[Flow, str]]

    def places(self, flow: Flow) -> dict[str, str]:
        """L4 node -> real server, for the L4 nodes that know the flow."""
        return {l4: table[flow] for l4, table in self.tables.items() if flow in table}


@dataclass(frozen=True)
class Phase:
    """A part of an experiment, until the next one begins. `what` is what had been done when it began."""

    name: str
    began: float
    what: str = ""


@dataclass(frozen=True)
class Outage:
    """From `since` on a machine was dead or out of reach, or what it serves a protocol with (empty: all of it); what it
    held is lost, whenever it came back."""

    machine: str
    since: float
    protocol: str = ""

    def covers(self, holder: str, flow: Flow) -> bool:
        """Whether a flow that a real server held was lost in it."""
        return self.machine == holder and self.protocol in ("", flow.protocol)


@dataclass(frozen=True)
class BrokenFlow:
    """One flow that broke: who, why, when, and whether it had to be.

    `stopped_at`: since when nothing moved any more. `phase` is that of this moment. `places`: where the L4 nodes that
    knew it in the end sent it.
    """

    flow: Flow
    vip_port: int
    kind: str
    why: str
    at: float
    stopped_at: float
    phase: str
    l7: str
    avoidable: bool
    places: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        ends = f"{self.flow.protocol} {_ends(self.flow)}:{self.vip_port}"
        sent = ", ".join(f"{l4} sends it to {real}" for l4, real in self.places.items() if real != self.l7)
        had = "avoidable" if self.avoidable else "not avoidable"
        return f"{ends} ({self.kind}), held by {self.l7}, {self.phase}: {self.why}; {had}" + (
            f"; {sent}" if sent else ""
        )


@dataclass(frozen=True)
class Failure:
    """One new request that got no answer."""

    flow: Flow
    at: float
    phase: str
    why: str

    def __str__(self) -> str:
        return f"{_ends(self.flow)} at {self.at:.1f}, {self.phase}: {self.why}"

    def as_json(self) -> dict[str, Any]:
        return {**_ends_as_json(self.flow), "why": self.why, "phase": self.phase, "at": round(self.at, 2)}


@dataclass(frozen=True)
class Stall:
    """The longest time that one flow did not get on, and who held it."""

    flow: Flow
    kind: str
    seconds: float
    at: float
    phase: str
    l7: str

    def as_json(self) -> dict[str, Any]:
        times = {"seconds": round(self.seconds, 2), "at": round(self.at, 2)}
        return {**_ends_as_json(self.flow), "kind": self.kind, **times, "phase": self.phase, "l7": self.l7}


@dataclass(frozen=True)
class Account:
    """The whole of it. `stalled` and `stalls`, the longest ones, are of flows whose real server lived through it all;
    `elsewhere` counts flows by UDP that another server answered, or the same one started anew."""

    opened: int
    finished: int
    broken: tuple[BrokenFlow, ...]
    lost: int
    moved: int
    stalled: int
    stalls: tuple[Stall, ...]
    requests: int
    failures: tuple[Failure, ...]
    datagrams: int = 0
    datagrams_lost: int = 0
    elsewhere: int = 0

    @property
    def avoidable(self) -> tuple[BrokenFlow, ...]:
        return tuple(flow for flow in self.broken if flow.avoidable)

    @property
    def longest_stall_s(self) -> float:
        return self.stalls[0].seconds if self.stalls else 0.0

    def by_phase(self, phases: Sequence[str]) -> dict[str, int]:
        """Avoidable breaks in each phase."""
        counts = Counter(flow.phase for flow in self.avoidable)
        return {name: counts[name] for name in phases}

    def as_json(self) -> dict[str, Any]:
        return {
            "opened": self.opened,
            "finished": self.finished,
            "broken": len(self.broken),
            "avoidable": len(self.avoidable),
            "on_lost_servers": self.lost,
            "moved": self.moved,
            "stalled_over_1s": self.stalled,
            "longest_stall_s": round(self.longest_stall_s, 2),
            "datagrams": self.datagrams,
            "datagrams_lost": self.datagrams_lost,
            "answered_elsewhere": self.elsewhere,
            "new_requests": self.requests,
            "new_requests_failed": len(self.failures),
            "reasons": dict(Counter(flow.why for flow in self.broken)),
            "failures": dict(Counter(failure.why for failure in self.failures)),
            "broken_flows": [_as_json(flow) for flow in self.broken],
            "failed_requests": [failure.as_json() for failure in self.failures],
            "longest_stalls": [stall.as_json() for stall in self.stalls],
        }


def _ends(flow: Flow) -> str:
    source, vip = (f"[{name}]" if ":" in name else name for name in (flow.source, flow.vip))
    return f"{source}:{flow.port} -> {vip}"


def _ends_as_json(flow: Flow) -> dict[str, Any]:
    return {"source": flow.source, "port": flow.port, "vip": flow.vip}


def _as_json(flow: BrokenFlow) -> dict[str, Any]:
    ends = {**_ends_as_json(flow.flow), "vip_port": flow.vip_port}
    rest = {name: getattr(flow, name) for name in ("kind", "why", "phase", "l7", "avoidable")}
    times = {"at": round(flow.at, 2), "stopped_at": round(flow.stopped_at, 2)}
    return {**ends, "protocol": flow.flow.protocol, **rest, **times, "places": dict(flow.places)}


@dataclass(frozen=True)
class Story:
    """What happened around the flows: samples and phases in the order of time, the first before anything was done."""

    samples: Sequence[Sample]
    phases: Sequence[Phase]
    outages: Sequence[Outage] = ()

    def holder(self, flow: Flow) -> str:
        """The real server that the first sample that knows the flow has it on."""
        for sample in self.samples:
            for real in sample.places(flow).values():
                return real
        return UNKNOWN

    def has_moved(self, flow: Flow) -> bool:
        """Whether more than one L4 node has ever carried the flow."""
        return len({l4 for sample in self.samples for l4 in sample.places(flow)}) > 1

    def phase(self, at: float) -> str:
        names = [phase.name for phase in self.phases if phase.began <= at]
        return names[-1] if names else self.phases[0].name

    def was_lost(self, holder: str, flow: Flow, at: float) -> bool:
        """Whether the real server that holds a flow had lost it by then."""
        return any(outage.covers(holder, flow) and outage.since <= at for outage in self.outages)

    def is_lost(self, holder: str, flow: Flow) -> bool:
        """Whether it lost the flow at any time."""
        return self.was_lost(holder, flow, math.inf)


def account(reports: Sequence[FlowReport], story: Story) -> Account:
    """Puts everything together. Short requests count as requests, all other kinds as flows."""
    flows = [report for report in reports if report.kind != SHORT]
    new = [report for report in reports if report.kind == SHORT]
    broken = tuple(_broken(report, story) for report in flows if report.broken)
    datagrams = [report for report in flows if report.kind == DATAGRAMS]
    lost = {report.flow for report in flows if story.is_lost(story.holder(report.flow), report.flow)}
    alive = sorted((report for report in flows if report.flow not in lost), key=lambda report: -report.stall_s)
    failures = tuple(
        Failure(Flow(report.source, port, report.vip), at, story.phase(at), why)
        for report in new
        for at, port, why in report.failures
    )
    return Account(
        opened=len(flows),
        finished=sum(report.ended and not report.broken for report in flows),
        broken=broken,
        lost=len(lost),
        moved=sum(story.has_moved(report.flow) for report in flows),
        stalled=sum(report.stall_s > STALLED_S for report in alive),
        stalls=tuple(_stall(report, story) for report in alive[:SHOWN_STALLS]),
        requests=sum(report.rounds + len(report.failures) for report in new),
        failures=failures,
        datagrams=sum(report.rounds + report.lost for report in datagrams),
        datagrams_lost=sum(report.lost for report in datagrams),
        elsewhere=sum(bool(report.other) for report in datagrams),
    )


def _stall(report: FlowReport, story: Story) -> Stall:
    holder, phase = story.holder(report.flow), story.phase(report.stall_at)
    return Stall(report.flow, report.kind, report.stall_s, report.stall_at, phase, holder)


def _broken(report: FlowReport, story: Story) -> BrokenFlow:
    holder = story.holder(report.flow)
    places = {l4: real for sample in story.samples for l4, real in sample.places(report.flow).items()}
    return BrokenFlow(
        report.flow,
        report.vip_port,
        report.kind,
        report.broken,
        report.broken_at,
        report.stopped_at,
        story.phase(report.stopped_at),
        holder,
        not story.was_lost(holder, report.flow, report.broken_at),
        places,
    )
