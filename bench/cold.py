"""How long does an empty kernel take to hold 100 services of 100 destinations, under mh?

Every side starts in a node of its own: the kernel searches destinations deleted in the last two minutes at every add
(ip_vs_ctl.c, ip_vs_trash_get_dest), so neither may find the other's.
"""

import gc
import subprocess
import time
from pathlib import Path

from bench import clock, peers, site
from bench.figure import OURS, Figure
from bench.site import Size
from bench.watch import Watch
from lbnode import reconcile
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.namespaces import Node
from lbnode.roles.inputs import Desired

SIZE = Size(100, 100)


def measure(rounds: int, log: Path) -> list[Figure]:
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        once = {**_pass(SIZE), "ipvsadm": _ipvsadm(), "keepalived": _keepalived(), **_apply(log)}
        for name, value in once.items():
            took.setdefault(name, []).append(value)
    theirs = {"ipvsadm": took["ipvsadm"], "keepalived": took["keepalived"]}
    what = f"cold, {SIZE}, mh: "

    def figure(text: str, ours: str, goal: float) -> Figure:
        return Figure(what + text, "ms", {OURS: took[ours], **theirs}, goal)

    return [
        figure("the IPVS pass (observe, diff, apply)", "pass", 20),
        figure("the same, and read back", "pass and verify", 0),
        figure("`lbnode apply`, start to all programmed", "apply programmed", 5),
        figure("`lbnode apply`, start to end of the process", "apply", 5),
    ]


def _pass(size: Size) -> dict[str, float]:
    """In this process, as the agent does it."""
    desired = Desired(site.rows(size))

    def inside() -> dict[str, float]:
        drivers = [IpvsDriver(site.PATHS)]
        gc.collect()
        start = time.perf_counter()
        results = reconcile.apply(reconcile.plan(desired, drivers), drivers)
        done = time.perf_counter()
        left = reconcile.plan(desired, drivers)
        verified = time.perf_counter()
        if left or any(result.error for result in results):
            raise RuntimeError("cannot measure: the pass did not do what it should")
        return {"pass": 1000 * (done - start), "pass and verify": 1000 * (verified - start)}

    with Node("ours") as node:
        clock.rest()
        return node.call(inside)


def _ipvsadm() -> float:
    text = peers.restore_text(SIZE).encode()
    with Node("ipvsadm") as node, Watch(node) as watch:
        clock.rest()
        start = time.perf_counter()
        process = node.popen(["ipvsadm", "--restore"], stdin=subprocess.PIPE)
        process.communicate(text)
        took = time.perf_counter() - start
        watch.wait_programmed(SIZE)
        return 1000 * took


def _keepalived() -> float:
    with Node("keepalived") as node, Watch(node) as watch:
        node.write(peers.KEEPALIVED_CONF, peers.keepalived_text(SIZE))
        clock.rest()
        start = time.perf_counter()
        peers.start_keepalived(node)
        watch.wait_programmed(SIZE)
        return 1000 * (time.perf_counter() - start)


def _apply(log: Path) -> dict[str, float]:
    with site.standing(SIZE, log) as node, Watch(node) as watch:
        clock.rest()
        start = time.perf_counter()
        process = node.popen(site.apply_command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        watch.wait_programmed(SIZE)
        programmed = time.perf_counter()
        _, errors = process.communicate()
        ended = time.perf_counter()
        if process.returncode:
            raise RuntimeError(f"cannot measure: {errors.decode()[-800:]}")
        return {"apply programmed": 1000 * (programmed - start), "apply": 1000 * (ended - start)}
