"""What does a large node cost: 3,000 services of 30 destinations, in time, memory, and processor time while idle?

The idle agent is a real one whose real servers are probed once a minute, so that its passes are what is measured: the
processor time of its process over some resyncs, as a share of one processor at a resync of 10 s.
"""

import os
import time
from functools import partial
from pathlib import Path

from bench import clock, site
from bench.figure import OURS, Figure
from bench.site import Size
from lbnode import reconcile
from lbnode.agent.loop import RESYNC_S
from lbnode.ipvs import codec
from lbnode.ipvs.driver import IpvsDriver
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.ipvs.rows import record_of_key
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.roles.inputs import Desired

SIZE = Size(3000, 30)
PROMISED_RESYNC_S = 10.0
PASSES = 2
TICKS = os.sysconf("SC_CLK_TCK")


def measure(rounds: int, log: Path) -> list[Figure]:
    desired = Desired(site.rows(SIZE))
    took: dict[str, list[float]] = {}

    def inside() -> dict[str, float]:
        drivers = [IpvsDriver(site.PATHS)]
        cold = clock.milliseconds(lambda: reconcile.run(desired, drivers).raise_if_failed())
        last = reconcile.plan(desired, drivers)
        idle, processor = clock.with_processor(lambda: reconcile.plan(desired, drivers, last))
        asking = clock.milliseconds(_ask)
        return {"cold": cold, "idle": idle, "idle processor": processor, "asking": asking}

    for _round in range(rounds):
        with Node("ours") as node:
            clock.rest()
            for name, value in node.call(inside).items():
                took.setdefault(name, []).append(value)
    agent = _agent(rounds, log)

    def figure(text: str, unit: str, values: list[float], goal: float = 0) -> Figure:
        return Figure(f"{SIZE}: {text}", unit, {OURS: values}, goal)

    return [
        figure("the whole IPVS pass, cold (observe, diff, apply, read back)", "ms", took["cold"]),
        figure("an idle IPVS pass (observe, diff)", "ms", took["idle"]),
        figure("the same, processor time", "ms", took["idle processor"], 100),
        figure("of that, asking the kernel, without a look at the answers", "ms", took["asking"]),
        figure("resident memory of the agent", "MB", agent["memory"], 200),
        figure("processor time of the idle agent, at a resync of 10 s", "%", agent["processor"], 1),
    ]


def _ask() -> None:
    """What no reader can do without: every service's destinations from the kernel, not looked at."""
    with GenericNetlink(codec.FAMILY) as link:
        for key in SIZE.keys:
            link.dump(codec.destinations_query(record_of_key(key)))


def _agent(rounds: int, log: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"memory": [], "processor": []}
    with site.standing(SIZE, log) as node:
        pid = site.start_agent(node, log)
        for _ in range(rounds):
            before, began = _processor_s(pid), time.monotonic()
            wait_until(partial(_over, began + PASSES * RESYNC_S), 60, "some resyncs", 0.5)
            share = (_processor_s(pid) - before) / (time.monotonic() - began)
            found["processor"].append(100 * share * RESYNC_S / PROMISED_RESYNC_S)
            found["memory"].append(_resident_mb(pid))
    return found


def _over(end: float) -> bool:
    return time.monotonic() >= end


def _processor_s(pid: int) -> float:
    """User and system seconds of a process (proc(5), /proc/PID/stat)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
