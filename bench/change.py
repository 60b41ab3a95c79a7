"""How long does a changed weight take to reach the kernel, when 10,000 destinations stand?

Two changes: one row of one service, and one machine's weight, which is a row of each of the 100 services. keepalived
gets its edited file and a SIGHUP; lbnode is measured as a pass in a process that runs, as the agent from the saving of
the cluster file, and as `lbnode apply` from start to end.
"""

import signal
from dataclasses import replace
from pathlib import Path

from bench import clock, peers, site
from bench.figure import OURS, Figure
from bench.site import Size
from bench.watch import Watch
from lbnode import reconcile
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.namespaces import Node
from lbnode.resources import Destination, Row
from lbnode.roles.inputs import Desired

SIZE = Size(100, 100)
ADDRESS = SIZE.addresses[49]
FIRST, SECOND = 50, 25
"""The new weights. The kernel cuts weights into few steps; lbnode refuses those that would leave servers without."""
KEY = max(SIZE.keys)  # the last in lbnode's order; in keepalived's too it stands late


def measure(rounds: int, log: Path) -> list[Figure]:
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, value in {**_pass(), **_keepalived(), **_processes(log)}.items():
            took.setdefault(name, []).append(value)

    def figure(text: str, ours: str, theirs: str, goal: float) -> Figure:
        what = f"a weight changes among {SIZE}: {text}"
        return Figure(what, "ms", {OURS: took[ours], "keepalived": took[theirs]}, goal)

    return [
        figure("1 row, the IPVS pass / SIGHUP", "pass, 1 row", "keepalived, 1 row", 5),
        figure("100 rows (a machine), the IPVS pass / SIGHUP", "pass, 100 rows", "keepalived, 100 rows", 5),
        figure("100 rows, agent: file saved to kernel / SIGHUP", "agent", "keepalived, 100 rows", 5),
        figure("100 rows, `lbnode apply`, start to end / SIGHUP", "apply", "keepalived, 100 rows", 0),
    ]


def _pass() -> dict[str, float]:
    standing = site.rows(SIZE)
    many = Desired(site.rows(SIZE, {ADDRESS: SECOND}))
    one = Desired(tuple(_changed(row) for row in standing))

    def inside() -> dict[str, float]:
        drivers = [IpvsDriver(site.PATHS)]

        def converge(desired: Desired) -> None:
            results = reconcile.apply(reconcile.plan(desired, drivers), drivers)
            if not results or any(result.error for result in results):
                raise RuntimeError("cannot measure: the pass did not do what it should")

        reconcile.run(Desired(standing), drivers).raise_if_failed()
        first = clock.milliseconds(lambda: converge(one))
        return {"pass, 1 row": first, "pass, 100 rows": clock.milliseconds(lambda: converge(many))}

    with Node("ours") as node:
        clock.rest()
        return node.call(inside)


def _changed(row: Row) -> Row:
    if isinstance(row, Destination) and (row.service, row.address) == (KEY, ADDRESS):
        return replace(row, weight=FIRST, table_weight=FIRST)
    return row


def _keepalived() -> dict[str, float]:
    services = range(SIZE.services)
    place = SIZE.keys.index(KEY)
    with Node("keepalived") as node, Watch(node) as watch:
        node.write(peers.KEEPALIVED_CONF, peers.keepalived_text(SIZE))
        process = peers.start_keepalived(node)
        watch.wait_programmed(SIZE)

        def reload(weights: dict[tuple[int, str], int], expected: int) -> float:
            def signal_and_wait() -> None:
                process.send_signal(signal.SIGHUP)
                watch.wait_weight(KEY, ADDRESS, expected)

            node.write(peers.KEEPALIVED_CONF, peers.keepalived_text(SIZE, weights))
            clock.rest()
            return clock.milliseconds(signal_and_wait)

        one = reload({(place, ADDRESS): FIRST}, FIRST)
        many = reload({(number, ADDRESS): SECOND for number in services}, SECOND)
        return {"keepalived, 1 row": one, "keepalived, 100 rows": many}


def _processes(log: Path) -> dict[str, float]:
    """`lbnode apply` without an agent, then the agent."""
    with site.standing(SIZE, log) as node, Watch(node) as watch:
        site.run(node, site.apply_command())
        node.write(site.PATHS.cluster_file, site.cluster_file(SIZE, {ADDRESS: FIRST}))
        clock.rest()
        apply = clock.milliseconds(lambda: site.run(node, site.apply_command()))
        watch.wait_weight(KEY, ADDRESS, FIRST)
        site.start_agent(node, log)
        text = site.cluster_file(SIZE, {ADDRESS: SECOND})

        def save_and_wait() -> None:
            node.write(site.PATHS.cluster_file, text)
            watch.wait_weight(KEY, ADDRESS, SECOND)

        agent = clock.milliseconds(save_and_wait)
        return {"apply": apply, "agent": agent}
