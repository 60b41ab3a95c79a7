"""A network with its programs and clients, as the steps of a scenario use it."""

import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab import programs
from lbnode.lab.account import FlowReport
from lbnode.lab.build import Lab
from lbnode.lab.clients.crowd import Crowd
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.report import Report, expect
from lbnode.lab.scenarios.sight import Routes, Service
from lbnode.lab.supervisor import Supervisor
from lbnode.lab.wait import wait_until

COMMAND_DEADLINE_S = 60.0
POLL_S = 0.005
STILL_MOVING_S = 60.0
PORT = 80


@dataclass(frozen=True)
class Done:
    """What became of one lbnode command."""

    status: int
    out: str
    errors: str


class Stage:
    """`lab`, its supervisor, the clients, and eyes on the routers."""

    def __init__(self, lab: Lab, supervisor: Supervisor, crowd: Crowd, report: Report) -> None:
        self.lab = lab
        self.supervisor = supervisor
        self.crowd = crowd
        self.report = report
        self.routes = {name: Routes(lab.nodes[name]) for name in lab.topology.routers}
        machines = lab.topology.machines.values()
        self._names = {
            address: machine.name for machine in machines for v in (4, 6) for address in machine.addresses(v)
        }
        self.l4, self.l7, self.backends = (lab.topology.with_role(role) for role in ("l4", "l7", "backend"))

    def node(self, name: str) -> Node:
        return self.lab.nodes[name]

    def address(self, name: str, version: int) -> str:
        return self.lab.topology.machines[name].addresses(version)[0]

    def name_of(self, address: str) -> str:
        """The machine that has an address."""
        return self._names[address]

    @property
    def vips(self) -> list[str]:
        return [str(vip) for service in self.lab.topology.cluster.services.values() for vip in service.vips]

    def vips_of(self, through: str) -> list[str]:
        services = self.lab.topology.cluster.services.values()
        return [str(vip) for service in services if service.through == through for vip in service.vips]

    @property
    def clients(self) -> list[str]:
        """Every client address, of both families."""
        users = self.lab.topology.clients
        return [*users.addresses(4), *users.addresses(6)]

    def carriers(self, router: str, vip: str) -> set[str]:
        """The L4 nodes that a router sends a VIP's packets to."""
        version = 6 if ":" in vip else 4
        hops = self.routes[router].gateways(version).get(vip, frozenset())
        return {self.name_of(hop) for hop in hops}

    def routed(self, name: str) -> bool:
        """Whether any router still sends anything to an L4 node."""
        own = {self.address(name, 4), self.address(name, 6)}
        return any(own & hops for table in self.routes.values() for v in (4, 6) for hops in table.gateways(v).values())

    def routed_fully(self, name: str) -> bool:
        """Whether every router sends every VIP's packets to an L4 node, among others."""
        for table in self.routes.values():
            found = table.gateways(4) | table.gateways(6)
            for vip in self.vips:
                if self.address(name, 6 if ":" in vip else 4) not in found.get(vip, frozenset()):
                    return False
        return True

    def weights(self, l4: str) -> dict[Service, dict[str, int]]:
        return sight.weights(self.node(l4))

    def weights_of(self, real_server: str) -> set[int]:
        """All weights that any L4 node has for a real server, over all services."""
        own = {address for v in (4, 6) for address in self.lab.topology.machines[real_server].addresses(v)}
        tables = [rows for services in self.all_weights().values() for rows in services.values()]
        return {weight for rows in tables for address, weight in rows.items() if address in own}

    def all_in_use(self, l7: Sequence[str] | None = None) -> bool:
        """Whether every L4 node has every real server of every service at a weight above 0, and no others.

        `l7`: the L7 nodes meant, when not all.
        """
        for services in self.all_weights().values():
            for vip in self.vips:
                names = (self.l7 if l7 is None else l7) if vip in self.vips_of("l7") else self.backends
                wanted = {self.address(name, 6 if ":" in vip else 4) for name in names}
                used = {real for real, weight in services.get((vip, PORT), {}).items() if weight}
                if used != wanted:
                    return False
        return True

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

    def all_weights(self) -> dict[str, dict[Service, dict[str, int]]]:
        return {name: self.weights(name) for name in self.l4}

    def all_routes(self) -> dict[str, dict[str, frozenset[str]]]:
        """Router -> VIP -> next hops."""
        return {name: table.gateways(4) | table.gateways(6) for name, table in self.routes.items()}

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

    def close(self) -> None:
        for routes in self.routes.values():
            routes.close()


def require_whole(reports: list[FlowReport], what: str) -> None:
    """Requires that no flow broke."""
    broken = [report for report in reports if report.broken]
    seen = [f"{r.kind} {r.source}:{r.port} -> {r.vip} ({r.backend or '?'}): {r.broken}" for r in broken[:5]]
    expect(not broken, f"{what}: none of {len(reports)} flows broken", f"{len(broken)} broken: {'; '.join(seen)}")
