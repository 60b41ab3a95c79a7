"""The fault matrix of announcing: every program of the chain, every way to die, one at a time.

                            SIGKILL    SIGSTOP    SIGTERM    ten crashes
    agent
    relay
    ExaBGP
    router (its daemon)

Each cell is one experiment on a network that stands: flows that last and short requests run, something is done to one
program, the supervisor starts it again as systemd would, and the routers' kernels are watched until all is as before.
"""

import json
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lbnode.bgp import heartbeat
from lbnode.lab import programs
from lbnode.lab.build import CLUSTER_FILE, build, load
from lbnode.lab.clients.crowd import Crowd, mix
from lbnode.lab.errors import LabError
from lbnode.lab.programs import AGENT, BIRD, EXABGP, PATHS
from lbnode.lab.scenarios.eyes import Eyes, Gaps
from lbnode.lab.scenarios.report import Report
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.supervisor import Supervisor
from lbnode.lab.wait import wait_until

FLOWS = 48
KINDS = ("download", "upload", "requests", "short")
CRASHES = 10
STOPPED_MORE_S = 4.0
"""Longer than the hold time, so that whoever waits for a stopped program has lost patience."""
SETTLED_S, CALM_S = 300.0, 3.0
BACK_S = 60.0
DEAD_MAN = "dead_man: {after_s: 3, then: withdraw}"
RELAY = "relay"


@dataclass(frozen=True)
class Fault:
    """One way to die: `count` times in a row, each as soon as the program is back. What is stopped goes on later."""

    name: str
    number: signal.Signals
    count: int = 1


FAULTS = (
    Fault("SIGKILL", signal.SIGKILL),
    Fault("SIGSTOP", signal.SIGSTOP),
    Fault("SIGTERM", signal.SIGTERM),
    Fault(f"{CRASHES} crashes", signal.SIGKILL, CRASHES),
)


@dataclass(frozen=True)
class Victim:
    """A program of one machine; `rule` is what the cluster file says besides, there alone."""

    name: str
    machine: str
    program: str
    rule: str = ""


@dataclass(frozen=True)
class Cell:
    """What was seen. `stopped_s`: for how long the program stood still."""

    victim: str
    fault: str
    gaps: Gaps
    stopped_s: float
    flows: int
    broken: int
    stall_s: float
    failed: int

    @property
    def row(self) -> list[object]:
        return [self.gaps, f"{self.broken} of {self.flows}", f"{self.stall_s:.1f} s", self.failed]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(folder: Path, scale: str, work: Path, only: Sequence[str], faults: Sequence[str]) -> list[Cell]:
    """Every cell, or those of some programs and faults; prints the table, writes `<work>/faults.json`. Raises
    LabError."""
    report, topology = Report(), load(folder, scale)
    wanted = [fault for fault in FAULTS if not faults or fault.name in faults]
    report.line(f"{topology.title}; scale {scale}; logs in {work / 'logs'}")
    with build(topology, work) as lab, Supervisor(lab.logs) as supervisor:
        programs.start_network(lab, supervisor)
        with Crowd(lab.nodes[topology.clients.name], lab.logs / "users.log") as crowd:
            stage = Stage(lab, supervisor, {topology.clients.name: crowd}, report)
            victims = _chosen(stage, only)
            with report.step("programs on every node"):
                programs.start_nodes(lab, supervisor)
                _settle(stage)
            cells = [_cell(stage, victim, fault) for victim in victims for fault in wanted]
            stage.close()
    report.table(
        ("program, fault", "routers' kernels", "flows broken", "longest stall", "requests failed"),
        {f"{cell.victim}, {cell.fault}": cell.row for cell in cells},
    )
    (work / "faults.json").write_text(json.dumps([cell.as_json() for cell in cells], indent=1) + "\n")
    return cells


def _chosen(stage: Stage, only: Sequence[str]) -> list[Victim]:
    """The programs of the first machine that announces, and the first router's daemon. Raises LabError."""
    topology = stage.lab.topology
    announcer = topology.announcers[0]
    routers = [name for name in stage.routes if topology.machines[name].bird]
    found = [
        Victim(AGENT, announcer, AGENT),
        Victim(f"{AGENT}, {DEAD_MAN}", announcer, AGENT, DEAD_MAN),
        Victim(RELAY, announcer, RELAY),
        Victim(EXABGP, announcer, EXABGP),
        *(Victim(f"router ({BIRD})", router, BIRD) for router in routers[:1]),
    ]
    if unknown := set(only) - {victim.program for victim in found}:
        raise LabError(f"cannot harm {', '.join(sorted(unknown))}: there are {AGENT}, {RELAY}, {EXABGP}, {BIRD}")
    return [victim for victim in found if not only or victim.program in only]


def _settle(stage: Stage) -> None:
    """Until every VIP has a way on some router, every request is answered, and no way has come for a while."""
    vips = set(stage.vips)

    def everywhere() -> bool:
        return vips <= {vip for table in stage.all_routes().values() for vip in table}

    stage.wait(everywhere, SETTLED_S, "a way to every VIP", 0.2)
    last, since = stage.all_routes(), time.monotonic()

    def calm() -> bool:
        nonlocal last, since
        now = stage.all_routes()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 2 * CALM_S

    stage.wait(calm, SETTLED_S, "routes that stay", 0.2)


def _cell(stage: Stage, victim: Victim, fault: Fault) -> Cell:
    group = f"{victim.name}-{fault.name}"
    with stage.report.step(f"{victim.name} of {victim.machine}: {fault.name}"):
        _rule(stage, victim)
        stage.crowd.start(group, mix(FLOWS, KINDS, stage.vips, stage.clients), tick_s=0.5)
        with Eyes(stage) as eyes:
            eyes.mark()
            stopped = 0.0
            for number in range(fault.count):
                stopped += _harm(stage, victim, fault, last=number == fault.count - 1)
            wait_until(lambda: eyes.calm_s > CALM_S, SETTLED_S, "every way as before", 0.1)
            seen = eyes.gaps()
        stage.crowd.meet(group)
        reports = stage.crowd.finish(group)
        _rule(stage, replace(victim, rule=""))
        cell = Cell(
            victim.name,
            fault.name,
            seen,
            round(stopped, 1),
            len(reports),
            sum(bool(report.broken) for report in reports),
            max(report.stall_s for report in reports),
            sum(len(report.failures) for report in reports),
        )
        stage.report.found(f"routers' kernels: {seen}")
        stage.report.found(
            f"clients: {cell.broken} of {cell.flows} flows broken, longest stall {cell.stall_s:.1f} s,"
            f" {cell.failed} requests failed"
        )
        return cell


def _harm(stage: Stage, victim: Victim, fault: Fault, last: bool) -> float:
    """Does it, and waits until the program is there again. Returns how long it stood still."""
    old = _pid(stage, victim)
    _signal(stage, victim, fault.number)
    if fault.number is signal.SIGSTOP:
        began = time.monotonic()
        patience = stage.lab.topology.cluster.bgp.hold_time_s + STOPPED_MORE_S
        wait_until(lambda: time.monotonic() - began > patience, 2 * patience, "the time to pass", 0.1)
        _signal(stage, victim, signal.SIGCONT)
        return time.monotonic() - began
    wait_until(lambda: _pid(stage, victim) not in (0, old), BACK_S, f"{victim.name} to be started again", 0.02)
    if last and victim.program == AGENT:
        _wait_for_beat(stage, victim, time.monotonic())
    return 0.0


def _signal(stage: Stage, victim: Victim, number: signal.Signals) -> None:
    if victim.program == RELAY:  # whose pid is one of its machine's own
        stage.node(victim.machine).run(["kill", f"-{int(number)}", str(_pid(stage, victim))], check=True)
    else:
        stage.supervisor.kill(stage.key(victim.machine, victim.program), number)


def _pid(stage: Stage, victim: Victim) -> int:
    """0 while it does not run."""
    if victim.program != RELAY:
        return stage.supervisor.pid(stage.key(victim.machine, victim.program)) or 0
    try:
        return int(json.loads(stage.node(victim.machine).read(PATHS.bgp_told))["pid"])
    except (OSError, ValueError):
        return 0


def _rule(stage: Stage, victim: Victim) -> None:
    """Gives a machine's cluster file the rule it should have, and waits until the agent has taken it in."""
    if victim.program != AGENT:
        return
    node = stage.node(victim.machine)
    lines = [line for line in node.read(CLUSTER_FILE).splitlines() if "dead_man" not in line]
    if victim.rule:
        at = next(number for number, line in enumerate(lines) if line.lstrip().startswith("local_asn:"))
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines.insert(at + 1, indent + victim.rule)
    node.write(CLUSTER_FILE, "\n".join(lines) + "\n")
    wanted = "withdraw" if victim.rule else "keep"
    _wait_for(stage, victim, lambda beat: beat.then == wanted, "the agent to follow its file")


def _wait_for_beat(stage: Stage, victim: Victim, after: float) -> None:
    _wait_for(stage, victim, lambda beat: beat.at > after, "a sign of life")


def _wait_for(stage: Stage, victim: Victim, right: Callable[[heartbeat.Beat], bool], what: str) -> None:
    node = stage.node(victim.machine)

    def found() -> bool:
        try:
            return right(heartbeat.parse(node.read(PATHS.bgp_heartbeat)))
        except (OSError, ValueError):
            return False

    wait_until(found, BACK_S, what, 0.1)
