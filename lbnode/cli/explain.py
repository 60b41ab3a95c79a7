"""`lbnode explain`: where one flow goes, and why; by the cluster file, and by every L4 node's kernel."""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from urllib.parse import quote

import click

from lbnode import explain as flows
from lbnode.agent import control
from lbnode.chance import memory
from lbnode.cli.options import Common, common
from lbnode.config.load import load
from lbnode.errors import LbnodeError, Missing, NotReady
from lbnode.explain import Question
from lbnode.health.state import Health, Probe
from lbnode.maintenance.state import READY
from lbnode.node import Identity, desired_state
from lbnode.plan import TABLE_ROWS
from lbnode.resources import Protocol, ServiceKey


def endpoint(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    """`203.0.113.7:40000` or `[2001:db8::7]:40000` as (address in canonical text, port). Raises BadParameter."""
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:]+)):(?P<port>\d{1,5})", value)
    if found and int(found["port"]) <= 65535:
        with suppress(ValueError):
            return str(IPv6Address(found["six"]) if found["six"] else IPv4Address(found["four"])), int(found["port"])
    raise click.BadParameter(f"{value!r} is not ADDRESS:PORT or [ADDRESS]:PORT")


@click.command()
@click.argument("source", callback=endpoint, metavar="SRC:PORT")
@click.argument("target", callback=endpoint, metavar="VIP:PORT")
@click.option("--proto", type=click.Choice(["tcp", "udp", "sctp"]), default="tcp", show_default=True)
@click.option("--live", is_flag=True, help="Ask the kernels of all L4 nodes as well, and say where they differ.")
@common
def explain(common: Common, source: tuple[str, int], target: tuple[str, int], proto: Protocol, live: bool) -> int:
    """Say which real server a flow goes to, and why.

    By the cluster file alone: what every L4 node does with a new flow when all real servers are up. With --live, also
    what each L4 node does now: this one by its own kernel, the others as their agents tell. Where this node remembers
    tables of before, also where the flow gets a second chance. IPv6 as [ADDRESS]:PORT.
    """
    key = ServiceKey(target[0], proto, target[1])
    if (":" in source[0]) != (":" in key.vip):
        raise click.UsageError(f"{source[0]} and {key.vip} are of different families")
    asked = _question(common, source, key)
    found = flows.explanation(asked, _live(common, asked) if live else None, memory.read(common.paths.generations))
    common.show(found, "\n".join(flows.lines(found)))
    return 0


def _question(common: Common, source: tuple[str, int], key: ServiceKey) -> Question:
    """The rows are those of any L4 node: they are the same on all. Raises Missing when no service takes the flow."""
    cluster = load(common.paths.cluster_file)
    node = next(iter(cluster.with_role("l4")), None)
    if node is None:
        raise Missing(f"cannot explain {key}: the cluster has no L4 node")
    unknown: dict[Probe, Health] = {}
    desired = desired_state(Identity(node, "l4", common.paths), cluster, READY, unknown)
    served = flows.table_key(desired.rows, key)
    if served is None:
        there = [
            str(ServiceKey(str(vip), service.protocol, port))
            for service in cluster.balanced.values()
            for vip in service.vips
            for port in service.ports
        ]
        raise Missing(f"cannot explain {key}: no service of the cluster file has it; there is {', '.join(there)}")
    wanted = [row for row in desired.rows if isinstance(row, TABLE_ROWS) and row.service == served]
    return Question(cluster, source, key, served, tuple(wanted))


def _live(common: Common, asked: Question) -> dict[str, dict[str, Any]]:
    """What each L4 node says of the service, in the order of the file. Raises NotReady when none says anything."""
    from lbnode.agent import neighbours

    nodes = list(asked.cluster.with_role("l4"))
    others = [name for name in nodes if name != common.node]
    told = neighbours.ask(asked.cluster, others, f"/tables?service={quote(str(asked.served), safe='')}")
    if common.node in nodes:
        told[common.node] = _own(common, asked)
    if all("error" in node for node in told.values()):
        why = "; ".join(f"{name}: {told[name]['error']}" for name in nodes)
        raise NotReady(f"cannot ask any L4 node: {why}")
    return {name: told[name] for name in nodes}


def _own(common: Common, asked: Question) -> dict[str, Any]:
    """The same of this node, by its own kernel; and the entry that the flow has, if it has one."""
    from lbnode.agent import tables
    from lbnode.ipvs import live

    try:
        found = tables.read(asked.wanted, str(asked.served))
        entry = live.entry(asked.key, *asked.source)
    except LbnodeError as error:
        return {"error": str(error)}
    status = control.ask(common.paths, "status")
    announced = status and [item["name"] for item in status["verdicts"] if item["kind"] == "vip" and item["good"]]
    return {"announced": announced, "tables": found, "entry": entry}
