"""Traffic that notices: flows against a lab that is up, a live view while somebody does things to it, an account.

Whoever runs it says nothing about what is done: `Watch` sees it. The view is drawn with rich where there is a terminal,
and is a line now and then where there is none.
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lbnode.lab.account import Account, Story, account
from lbnode.lab.attach import attach
from lbnode.lab.clients.crowd import Count, Crowd, pairs
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios.network import Network
from lbnode.lab.scenarios.planned import NEW_TICK_S, long_flows, new_requests, tick_s
from lbnode.lab.scenarios.report import Report, expect
from lbnode.lab.scenarios.watch import Watch
from lbnode.lab.signals import Relay
from lbnode.lab.wait import wait_until

LOOK_S = 1.0
ANSWERS_S = 120.0
"""A lab that has just been brought up takes a while."""
LINE_EVERY_S = 5.0
BROKEN_SHOWN = 20
NEWS_SHOWN = 8
STOPPED_BY = ("SIGINT", "SIGTERM", "SIGHUP")


class View(Protocol):
    """Where the state of things is shown."""

    def show(self, seconds: float, long: Count, new: Count, news: Sequence[str]) -> None: ...


def run(state: Path, flows: int, seconds: float) -> int:
    """Opens the flows, follows them for so long (0: until a signal comes), prints the account. The exit status is 1
    when flows broke that could have been kept. Raises LabError."""
    import select
    import signal

    report = Report()
    lab = attach(state)
    if not lab.topology.with_role("l4"):
        raise LabError(f"cannot account for flows in {lab.topology.name}: who holds a flow is read from L4 nodes")
    network = Network(lab)
    users = lab.nodes[lab.topology.clients.name]
    with (
        Relay(signal.Signals[name] for name in STOPPED_BY) as signals,
        Crowd(users, lab.logs / "traffic.log") as crowd,
    ):
        first = [lab.topology.clients.addresses(version)[0] for version in (4, 6)]
        wait_until(
            lambda: all(reply.status == 200 for reply in crowd.ask(pairs(network.vips, first))),
            ANSWERS_S,
            "every VIP to answer",
        )
        planned = long_flows(network, flows)
        vips = {vip for _, _, vip, _ in planned}
        report.line(f"opening {flows} flows from {len(network.clients)} addresses to {len(vips)} VIPs")
        began = crowd.start("long", planned, tick_s(flows))
        crowd.start("new", new_requests(network), NEW_TICK_S)
        expect(not all(row.broken for row in began), "flows that open", f"none did, such as {began[:1]}")
        watch = Watch(network)
        watch.begin([row.flow for row in began])
        start = time.monotonic()
        report.line("all open; ^C ends it" if not seconds else f"all open; ends by itself after {seconds:g} s")
        with _view(report) as view:
            while not signals.taken() and not (seconds and time.monotonic() - start >= seconds):
                news = watch.look()
                view.show(time.monotonic() - start, crowd.count("long"), crowd.count("new"), news)
                select.select([signals.fileno()], [], [], LOOK_S)
        report.line("ending: every flow completes what it is at")
        reports = crowd.finish("new") + crowd.finish("long")
        watch.look()
        watch.sample()
    network.close()
    told = account(reports, Story(watch.samples, watch.phases, watch.outages))
    tell(report, told)
    return 1 if told.avoidable else 0


def tell(report: Report, told: Account) -> None:
    """The account, as a person reads it."""
    report.line(
        f"opened {told.opened}, finished {told.finished}, broken {len(told.broken)} ({len(told.avoidable)} avoidable),"
        f" moved {told.moved}, stalled over 1 s {told.stalled}, longest stall {told.longest_stall_s:.1f} s;"
        f" {told.requests} new requests, {len(told.failures)} failed"
    )
    if told.datagrams:
        report.line(
            f"by UDP: {told.datagrams} datagrams, {told.datagrams_lost} lost;"
            f" {told.elsewhere} flows answered by another server, or by one started anew"
        )
    for phase, count in Counter(flow.phase for flow in told.broken).items():
        avoidable = sum(flow.phase == phase for flow in told.avoidable)
        report.found(f"{count} broke, {avoidable} of them avoidable, after: {phase}")
    for flow in sorted(told.broken, key=lambda flow: not flow.avoidable)[:BROKEN_SHOWN]:
        report.found(str(flow))
    if len(told.broken) > BROKEN_SHOWN:
        report.found(f"and {len(told.broken) - BROKEN_SHOWN} more")
    for why, count in Counter(failure.why for failure in told.failures).items():
        report.found(f"{count} new requests failed: {why}")


class _Lines:
    """A line at once when something has happened, else now and then."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._due = 0.0

    def show(self, seconds: float, long: Count, new: Count, news: Sequence[str]) -> None:
        for text in news:
            self._report.line(f"seen: {text}")
        if news or seconds >= self._due:
            self._due = seconds + LINE_EVERY_S
            self._report.line(
                f"{long.flows - long.broken} flows, {long.broken} broken, {long.stalling} stalled now, longest stall"
                f" {long.stall_s:.1f} s, {long.moved / 1e6:.1f} MB, {long.lost} datagrams lost; {new.rounds} new"
                f" requests, {new.failures} failed"
            )


class _Table:
    """A table that stays in its place on a terminal, and below it what has been seen."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._news: deque[str] = deque(maxlen=NEWS_SHOWN)

    def show(self, seconds: float, long: Count, new: Count, news: Sequence[str]) -> None:
        from rich.console import Group
        from rich.table import Table

        self._news.extend(f"{seconds:6.0f} s  {text}" for text in news)
        table = Table(title=f"{seconds:.0f} s", title_justify="left")
        for head in (
            "flows",
            "broken",
            "stalled now",
            "over 1 s ever",
            "longest stall",
            "MB",
            "datagrams lost",
            "new requests",
            "failed",
        ):
            table.add_column(head, justify="right")
        bad = f"[red]{long.broken}[/]" if long.broken else "0"
        cells = [str(long.flows), bad, str(long.stalling), str(long.stalled), f"{long.stall_s:.1f} s"]
        sums = [f"{long.moved / 1e6:.1f}", str(long.lost), str(new.rounds + new.failures), str(new.failures)]
        table.add_row(*cells, *sums)
        self._live.update(Group(table, *self._news))


@contextmanager
def _view(report: Report) -> Iterator[View]:
    if not sys.stdout.isatty():
        yield _Lines(report)
        return
    from rich.live import Live

    with Live(refresh_per_second=2) as live:
        yield _Table(live)
