"""A network with its programs and clients, as the steps of a scenario use it."""

import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab import programs
from lbnode.lab.account import FlowReport
from lbnode.lab.build import Lab
from lbnode.lab.clients.crowd import Crowd
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios.network import Network
from lbnode.lab.scenarios.report import Report, expect
from lbnode.lab.supervisor import Supervisor
from lbnode.lab.wait import wait_until

COMMAND_DEADLINE_S = 60.0
POLL_S = 0.005
STILL_MOVING_S = 60.0


@dataclass(frozen=True)
class Done:
    """What became of one lbnode command."""

    status: int
    out: str
    errors: str


class Stage(Network):
    """The network with its supervisor and its clients, those of each machine where some live."""

    def __init__(self, lab: Lab, supervisor: Supervisor, crowds: Mapping[str, Crowd], report: Report) -> None:
        super().__init__(lab)
        self.supervisor = supervisor
        self.crowds = crowds
        self.report = report

    @property
    def crowd(self) -> Crowd:
        """The clients of the first machine that has any: in most labs, all."""
        return self.crowds[self.lab.topology.clients.name]

    def wait(self, condition: Callable[[], object], deadline_s: float, what: str, poll_s: float = POLL_S) -> float:
        """Waits for a condition; returns how long that took, in seconds."""
        began = time.monotonic()
        wait_until(lambda: bool(condition()), deadline_s, what, poll_s)
        return time.monotonic() - began

    def lbnode(self, name: str, *arguments: str) -> Done:
        """Runs one lbnode command in a node, as a person would there."""
        with tempfile.TemporaryFile() as out, tempfile.NamedTemporaryFile() as errors:

            def command() -> int:
                os.dup2(out.fileno(), 1)
                return programs.lbnode(arguments)

            node = self.node(name)
            pid = node.fork(command, Path(errors.name))
            pidfd = os.pidfd_open(pid)
            late = not select.select([pidfd], [], [], COMMAND_DEADLINE_S)[0]
            if late:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            node.reaped(pid)
            out.seek(0)
            errors.seek(0)
            done = Done(status, out.read().decode(), errors.read().decode())
        if late:
            raise LabError(f"cannot run lbnode {' '.join(arguments)} on {name}: no end\n{done.out}{done.errors}")
        return done

    def key(self, name: str, program: str) -> str:
        """A program's name to the supervisor."""
        return f"{name}/{program}"

    def kill(self, name: str, program: str) -> None:
        """SIGKILL to a program and its children; the supervisor starts it again."""
        pid = self.supervisor.pid(self.key(name, program))
        expect(pid, f"{program} running on {name}", "it is not")
        os.killpg(pid or 0, signal.SIGKILL)  # each program leads a session of its own

    def knock_out(self, name: str, program: str) -> None:
        """SIGKILL, and it stays dead until `revive`."""
        self.kill(name, program)
        self.supervisor.stop(self.key(name, program))

    def revive(self, name: str, program: str) -> None:
        self.supervisor.start(self.key(name, program))

    @contextmanager
    def file(self, name: str, path: Path, text: str) -> Iterator[None]:
        """A file that exists on a node for the time of a block."""
        node = self.node(name)
        node.write(path, text)
        try:
            yield
        finally:
            node.call(lambda: path.unlink(missing_ok=True))

    def wait_for_bytes(self, group: str, which: Callable[[FlowReport], bool] = lambda _: True) -> None:
        """Waits until every flow of a group has moved bytes again: what has changed since then has been met by all.

        Raises Failed as soon as one of them is broken.
        """
        before = {(report.source, report.port): report.moved for report in self.crowd.look(group)}

        def moved() -> bool:
            reports = [report for report in self.crowd.look(group) if which(report)]
            require_whole(reports, f"flows of {group}")
            return all(report.moved > before[report.source, report.port] for report in reports)

        wait_until(moved, STILL_MOVING_S, f"bytes on every flow of {group}", 0.2)

    def finish(self, group: str, what: str) -> list[FlowReport]:
        """Ends a group of flows, and requires that none of them broke."""
        reports = self.crowd.finish(group)
        require_whole(reports, what)
        moved = sum(report.moved for report in reports)
        self.report.found(f"{what}: {len(reports)} flows, 0 broken, {moved / 1e6:.1f} MB, every byte checked")
        return reports


def require_whole(reports: list[FlowReport], what: str) -> None:
    """Requires that no flow broke."""
    broken = [report for report in reports if report.broken]
    seen = [f"{r.kind} {r.source}:{r.port} -> {r.vip} ({r.backend or '?'}): {r.broken}" for r in broken[:5]]
    expect(not broken, f"{what}: none of {len(reports)} flows broken", f"{len(broken)} broken: {'; '.join(seen)}")
