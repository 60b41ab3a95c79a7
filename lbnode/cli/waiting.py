"""Waiting until a node announces nothing and its flows have ended, with the count on stderr: in place on a terminal,
else a line when it changes."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import click

from lbnode.cli.options import Common
from lbnode.config.load import load
from lbnode.errors import ConfigError, Problem
from lbnode.maintenance.calm import Calm
from lbnode.maintenance.flows import Watch, watch
from lbnode.node import announced_by
from lbnode.plan import counted

LOOK_S = 1.0
LINE_S = 5.0
"""No more lines than one in so many seconds."""


def watched(common: Common) -> Watch:
    """What is to be watched on this node. Raises ConfigError when the cluster file does not know it, and LbnodeError
    when the kernel cannot be asked."""
    file = common.paths.cluster_file
    cluster = load(file)
    if common.node not in cluster.nodes:
        raise ConfigError([Problem(0, 0, f"no node {common.node!r}", "use --node", str(file))])
    found = watch(cluster, common.node, common.paths)
    found.look()
    identity = common.identity(None)
    return replace(found, announced=lambda: len(announced_by(identity, cluster)))


def until_calm(watch: Watch, timeout_s: int | None) -> dict[str, object]:
    """Returns when all flows have ended, or the time is over: {"ended": False, "left": 3, "unit": "connection",
    "flows": "3 connections left", "seconds": 41}. With nothing left for too short a time, they have not ended; nor
    while the node announces VIPs."""
    began = time.monotonic()
    calm = Calm(watch.calm_s)
    with _shown() as show:
        while True:
            vips, left, now = watch.announced(), watch.look(), time.monotonic()
            ended = calm.take(vips + left.number, now)
            text = f"{counted(left.number, left.unit)} {left.what}" if left.number else "none"
            text = f"{counted(vips, 'VIP')} still announced" if vips else text
            if ended or (timeout_s is not None and now - began >= timeout_s):
                text += "" if ended or left.number or vips else ", but not for long enough"
                waited = round(now - began)
                return {"ended": ended, "left": left.number, "unit": left.unit, "flows": text, "seconds": waited}
            show(text if vips or left.number else "none; waiting whether it stays so")
            time.sleep(LOOK_S)


@contextmanager
def _shown() -> Iterator[Callable[[str], None]]:
    """How to show the count."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def _lines() -> Callable[[str], None]:
    last, told = "", -LINE_S

    def show(text: str) -> None:
        nonlocal last, told
        now = time.monotonic()
        if text != last and now - told >= LINE_S:
            click.echo(text, err=True)
            last, told = text, now

    return show
