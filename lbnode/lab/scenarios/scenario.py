"""A scenario: steps that show what one topology claims, and how they are played on a network that stands."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab import programs
from lbnode.lab.build import build, load
from lbnode.lab.clients.crowd import Crowd
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios.report import Report
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.supervisor import Supervisor


@dataclass(frozen=True)
class Step:
    """One thing to show, so many rounds of it. `agents`: it wants them running; `scales`: not at all of them."""

    name: str
    title: str
    show: Callable[[Stage, int], None]
    agents: bool = True
    scales: tuple[str, ...] | None = None


def once(show: Callable[[Stage], None]) -> Callable[[Stage, int], None]:
    """For steps that do not repeat what they do."""
    return lambda stage, _: show(stage)


Steps = Sequence[Step]


@dataclass(frozen=True)
class Scenario:
    """`play` starts the nodes' programs, waits until all is as it should be and shows the steps it is given; `rounds`:
    how often measured steps are repeated when nobody says otherwise."""

    steps: tuple[Step, ...]
    play: Callable[[Stage, Steps, int], None]
    rounds: int = 3

    def chosen(self, scale: str, only: Sequence[str]) -> list[Step]:
        """The steps of a scale, or those of these names. Raises LabError."""
        steps = [step for step in self.steps if step.scales is None or scale in step.scales]
        if unknown := set(only) - {step.name for step in steps}:
            raise LabError(
                f"cannot find step {', '.join(sorted(unknown))}: there are {', '.join(step.name for step in steps)}"
            )
        return [step for step in steps if not only or step.name in only]


def run(
    scenario: Scenario, folder: Path, scale: str, work: Path, report: Report, only: Sequence[str], rounds: int
) -> None:
    """Brings the network up, shows every step (or those named in `only`), tears it down. Raises LabError."""
    topology = load(folder, scale)
    steps = scenario.chosen(scale, only)
    before = _memory_used_mb()
    report.line(f"{topology.title}; scale {scale}, {len(topology.machines)} nodes; logs in {work / 'logs'}")
    with build(topology, work) as lab, Supervisor(lab.logs) as supervisor, ExitStack() as stack:
        programs.start_network(lab, supervisor)
        report.line(f"network up: {len(lab.nodes)} nodes, {len(topology.lans)} LANs")
        crowds = {
            user.name: stack.enter_context(Crowd(lab.nodes[user.name], lab.logs / f"{user.name}.log"))
            for user in topology.users
        }
        stage = Stage(lab, supervisor, crowds, report)
        scenario.play(stage, steps, rounds or scenario.rounds)
        report.line(f"memory in use by all of it: {_memory_used_mb() - before:.0f} MB")
        stage.close()
    report.line(f"torn down; all {len(steps)} steps held")


def show(stage: Stage, steps: Steps, rounds: int) -> None:
    """The steps, one after the other, each with its title and the time it took."""
    for step in steps:
        with stage.report.step(step.title):
            step.show(stage, rounds)


def _memory_used_mb() -> float:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return (kilobytes["MemTotal"] - kilobytes["MemAvailable"]) / 1024
