"""What the three tiers must show, step by step, on one network: `lbnode lab run three-tier`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab import programs
from lbnode.lab.build import build, load
from lbnode.lab.clients.crowd import Crowd
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios import narrow, repair, serving, upkeep
from lbnode.lab.scenarios.report import Report
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.supervisor import Supervisor

ROUNDS = 10


@dataclass(frozen=True)
class Step:
    """One thing to show. `agents`: it wants them running."""

    name: str
    title: str
    show: Callable[[Stage, int], None]
    agents: bool = True


def _once(show: Callable[[Stage], None]) -> Callable[[Stage, int], None]:
    return lambda stage, _: show(stage)


STEPS: tuple[Step, ...] = (
    Step("apply", "`lbnode apply` alone, no agent anywhere", _once(repair.apply_alone), agents=False),
    Step("plan", "a service removed by hand, no agent running", _once(repair.drift_planned), agents=False),
    Step("spread", "requests from every client to every VIP", _once(serving.spread)),
    Step("address", "the client's own address", _once(serving.own_address)),
    Step("return", "direct return", _once(serving.return_path)),
    Step("path-mtu", "a path of MTU 1400", _once(narrow.path_mtu)),
    Step("disable", "`touch /etc/lb/disable` on L4 nodes", upkeep.l4_disable),
    Step("l7-killed", "HAProxy killed on an L7 node", _once(upkeep.l7_killed)),
    Step("l7-drain", "`lbnode drain` on an L7 node", _once(upkeep.l7_drain)),
    Step("l7-down", "`down` on an L7 node", _once(upkeep.l7_down)),
    Step("backend-down", "`down` on a backend", _once(upkeep.backend_down)),
    Step("backend-drain", "`lbnode drain` on a backend", _once(upkeep.backend_drain)),
    Step("drift", "a service removed by hand, the agent running", _once(repair.drift_repaired)),
    Step("agent-killed", "agents killed", _once(repair.agent_killed)),
    Step("exabgp-killed", "ExaBGP killed", _once(repair.exabgp_killed)),
    Step("bad-file", "a cluster file with six mistakes", _once(repair.bad_file)),
)


def run(folder: Path, scale: str, work: Path, report: Report, only: Sequence[str] = (), rounds: int = ROUNDS) -> None:
    """Brings the network up, shows every step (or those named in `only`), tears it down. Raises LabError."""
    unknown = set(only) - {step.name for step in STEPS}
    if unknown:
        raise LabError(f"cannot find step {', '.join(sorted(unknown))}: there are {', '.join(s.name for s in STEPS)}")
    topology = load(folder, scale)
    steps = [step for step in STEPS if not only or step.name in only]
    before = _memory_used_mb()
    report.line(f"{topology.title}; scale {scale}, {len(topology.machines)} nodes; logs in {work / 'logs'}")
    with build(topology, work) as lab, Supervisor(lab.logs) as supervisor:
        programs.start_network(lab, supervisor)
        report.line(f"network up: {len(lab.nodes)} nodes, {len(topology.lans)} LANs")
        with Crowd(lab.nodes[topology.clients.name], lab.logs / "users.log") as crowd:
            stage = Stage(lab, supervisor, crowd, report)
            _show(stage, steps, rounds)
            report.line(f"memory in use by all of it: {_memory_used_mb() - before:.0f} MB")
            stage.close()
    report.line(f"torn down; all {len(steps)} steps held")


def _memory_used_mb() -> float:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return (kilobytes["MemTotal"] - kilobytes["MemAvailable"]) / 1024


def _show(stage: Stage, steps: Sequence[Step], rounds: int) -> None:
    report = stage.report
    alone = [step for step in steps if not step.agents]
    programs.start_nodes(stage.lab, stage.supervisor, agents=not alone)
    repair.foreign_service(stage)
    for step in alone:
        with report.step(step.title):
            step.show(stage, rounds)
    with report.step("agents on every node"):
        if alone:
            repair.start_agents(stage)
        serving.converge(stage)
    for step in steps:
        if step.agents:
            with report.step(step.title):
                step.show(stage, rounds)
    repair.foreign_survives(stage)
