"""The fault matrix of announcing: every program of the chain, every way to die, one at a time.

                            SIGKILL    SIGSTOP    SIGTERM    ten crashes
    agent
    relay and ExaBGP, or the daemons of BIRD or FRR
    router (its daemon)

Each cell is one experiment on a network that stands: flows that last and short requests run, something is done to one
program, the supervisor starts it again as systemd would, and the routers' kernels are watched until all is as before.
"""

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lbnode.bgp import heartbeat
from lbnode.lab import frr, programs
from lbnode.lab.build import CLUSTER_FILE, build, load
from lbnode.lab.clients.crowd import Crowd, mix
from lbnode.lab.programs import AGENT, PATHS
from lbnode.lab.scenarios.eyes import Eyes, Gaps
from lbnode.lab.scenarios.report import Report, expect
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.scenarios.standing import bring_up, settle
from lbnode.lab.scenarios.victims import RELAY, ROUTER, Victim, leading_to, victims
from lbnode.lab.supervisor import Supervisor
from lbnode.lab.wait import wait_until

FLOWS = 48
KINDS = ("download", "upload", "requests", "short")
CRASHES = 10
STOPPED_MORE_S = 4.0
"""Longer than the hold time, so that whoever waits for a stopped program has lost patience."""
CALM_S = 5.0
"""So long nothing changes any more, then the experiment is over."""
AS_BEFORE_S = 300.0
BACK_S = 150.0


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
class Cell:
    """What was seen. `stopped_s`: for how long the program stood still; `tiered`: there is a tier 2, on all of whose
    nodes a flow goes on."""

    victim: str
    fault: str
    gaps: Gaps
    stopped_s: float
    flows: int
    broken: int
    stall_s: float
    failed: int
    tiered: bool

    @property
    def kept(self) -> bool:
        """Whether no flow broke that could have gone on: without tier 2, one that ECMP moves cannot. A router that
        begins anew may have the same ways in another order, and moves flows too."""
        moved = self.gaps.first_s is not None or self.victim.startswith(ROUTER)
        return not self.broken or (moved and not self.tiered)

    @property
    def row(self) -> list[object]:
        return [self.gaps, f"{self.broken} of {self.flows}", f"{self.stall_s:.1f} s", self.failed]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(folder: Path, scale: str, work: Path, only: Sequence[str], faults: Sequence[str]) -> list[Cell]:
    """Every cell, or those of some programs and faults; prints the table, writes `<work>/faults.json`, also of what was
    seen before an experiment failed. Raises LabError."""
    report, topology, cells = Report(), load(folder, scale), list[Cell]()
    chosen = victims(topology, only)
    wanted = [fault for fault in FAULTS if not faults or fault.name in faults]
    report.line(f"{topology.title}; scale {scale}; logs in {work / 'logs'}")
    try:
        with build(topology, work) as lab, Supervisor(lab.logs) as supervisor:
            programs.start_network(lab, supervisor)
            with Crowd(lab.nodes[topology.clients.name], lab.logs / "users.log") as crowd:
                stage = Stage(lab, supervisor, {topology.clients.name: crowd}, report)
                with report.step("programs on every node"):
                    bring_up(stage)
                for victim in chosen:
                    cells += (_cell(stage, victim, fault) for fault in wanted)
                stage.close()
    finally:
        _show(report, cells)
        (work / "faults.json").write_text(json.dumps([cell.as_json() for cell in cells], indent=1) + "\n")
    return cells


def _show(report: Report, cells: Sequence[Cell]) -> None:
    report.table(
        ("program, fault", "routers' kernels", "flows broken", "longest stall", "requests failed"),
        {f"{cell.victim}, {cell.fault}": cell.row for cell in cells},
    )


def _cell(stage: Stage, victim: Victim, fault: Fault) -> Cell:
    group = f"{victim.name}-{fault.name}"
    with stage.report.step(f"{victim.name} of {victim.machine}: {fault.name}"):
        _rule(stage, victim)
        settle(stage)
        stage.crowd.start(group, mix(FLOWS, KINDS, stage.vips, stage.clients), tick_s=0.5)
        others = _clients(stage, victim)
        with _eyes(stage, victim) as eyes:
            expect(eyes.before, f"ways that lead to {victim.machine}", "none")
            eyes.mark()
            stopped = 0.0
            for number in range(fault.count):
                stopped += _harm(stage, victim, fault, last=number == fault.count - 1)
            wait_until(lambda: others <= _clients(stage, victim), BACK_S, f"others to find {victim.name}", 0.1)
            wait_until(lambda: eyes.calm_s > CALM_S, AS_BEFORE_S, "every way as before", 0.1)
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
            bool(stage.l4),
        )
        stage.report.found(f"routers' kernels: {seen}")
        stage.report.found(
            f"clients: {cell.broken} of {cell.flows} flows broken, longest stall {cell.stall_s:.1f} s,"
            f" {cell.failed} requests failed"
        )
        return cell


def _eyes(stage: Stage, victim: Victim) -> Eyes:
    """For all ways that lead to a machine, and those of a router itself."""
    hops = leading_to(victim.machine, stage.all_routes(), stage.name_of)
    return Eyes(stage, hops, [victim.machine] if victim.kind == ROUTER else [])


def _harm(stage: Stage, victim: Victim, fault: Fault, last: bool) -> float:
    """Does it, and waits until the program is there again. Returns how long it stood still."""
    old, sign = _pid(stage, victim), _sign(stage, victim)
    _signal(stage, victim, fault.number)
    if fault.number is signal.SIGSTOP:
        began = time.monotonic()
        patience = stage.lab.topology.cluster.bgp.hold_time_s + STOPPED_MORE_S
        wait_until(lambda: time.monotonic() - began > patience, 2 * patience, "the time to pass", 0.1)
        _signal(stage, victim, signal.SIGCONT)
        return time.monotonic() - began
    wait_until(lambda: _pid(stage, victim) not in (0, old), BACK_S, f"{victim.name} to be started again", 0.02)
    if last and victim.program == AGENT:
        wait_until(lambda: _sign(stage, victim) > sign, BACK_S, "a sign of life", 0.1)
    return 0.0


def _clients(stage: Stage, victim: Victim) -> set[str]:
    """The daemons that speak with a zebra: they notice late that there is another one. Of others, none."""
    return frr.clients(stage.node(victim.machine)) if victim.program == frr.ZEBRA else set()


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
    node, file = stage.node(victim.machine), stage.lab.topology.cluster_file.read_text()
    wanted = file.replace("bgp:\n", f"bgp:\n  {victim.rule}\n", 1) if victim.rule else file
    if wanted == node.read(CLUSTER_FILE):
        return
    node.write(CLUSTER_FILE, wanted)
    then = "withdraw" if victim.rule else "keep"
    wait_until(lambda: _beat(stage, victim).then == then, BACK_S, "the agent to follow its file", 0.1)


def _sign(stage: Stage, victim: Victim) -> float:
    """A number that grows with each sign of life of the machine's agent: its word to the relay; where none listens, the
    socket that it makes when it begins."""
    if stage.lab.topology.cluster.bgp.speaker == "exabgp":
        return _beat(stage, victim).at
    try:
        return stage.node(victim.machine).call(lambda: PATHS.agent_socket.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _beat(stage: Stage, victim: Victim) -> heartbeat.Beat:
    try:
        return heartbeat.parse(stage.node(victim.machine).read(PATHS.bgp_heartbeat))
    except (OSError, ValueError):
        return heartbeat.Beat(0, 1, "keep")
