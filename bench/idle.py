"""How long does it take to see that 10,000 destinations are as they should be?

`first` is a driver that has never read this kernel, as in `lbnode apply`; `again` one that has, as in the agent's next
pass. ipvsadm has to start a process for it; that is part of how it is used.
"""

import subprocess
from pathlib import Path

from bench import clock, site
from bench.figure import OURS, Figure
from bench.site import Size
from lbnode import reconcile
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.namespaces import Node
from lbnode.roles.inputs import Desired

SIZE = Size(100, 100)


def measure(rounds: int, _: Path) -> list[Figure]:
    took: dict[str, list[float]] = {}
    desired = Desired(site.rows(SIZE))

    def inside() -> dict[str, float]:
        drivers = [IpvsDriver(site.PATHS)]
        done = reconcile.run(desired, drivers)
        done.raise_if_failed()
        fresh, wanted = IpvsDriver(site.PATHS), desired.of(IpvsDriver.kinds)
        return {
            "first": clock.milliseconds(lambda: fresh.observe(wanted)),
            "again": clock.milliseconds(lambda: fresh.observe(wanted)),
            "plan": clock.milliseconds(lambda: reconcile.plan(desired, drivers, done.left)),
            "ipvsadm": clock.milliseconds(_save),
        }

    for _round in range(rounds):
        with Node("ours") as node:
            clock.rest()
            for name, value in node.call(inside).items():
                took.setdefault(name, []).append(value)

    def figure(text: str, ours: str, goal: float) -> Figure:
        return Figure(f"{SIZE} stand: {text}", "ms", {OURS: took[ours], "ipvsadm": took["ipvsadm"]}, goal)

    return [
        figure("observe, the first time / `ipvsadm -Sn`", "first", 2),
        figure("observe, again / `ipvsadm -Sn`", "again", 2),
        figure("observe again and diff / `ipvsadm -Sn`", "plan", 0),
    ]


def _save() -> None:
    subprocess.run(["ipvsadm", "-Sn"], capture_output=True, check=True)
