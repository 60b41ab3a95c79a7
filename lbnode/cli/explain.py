"""`lbnode explain`: where one flow goes, and why; by the cluster file, and by this node's kernel."""

import re
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import click

from lbnode import impact, maglev
from lbnode.cli.options import Common, common
from lbnode.config.load import load
from lbnode.config.model import Cluster
from lbnode.errors import Missing
from lbnode.health.state import Health, Probe
from lbnode.maglev import Server, Table
from lbnode.maintenance.state import READY
from lbnode.node import Identity, desired_state
from lbnode.plan import TABLE_ROWS, diff
from lbnode.resources import Destination, Protocol, Row, ServiceKey


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
@click.option("--live", is_flag=True, help="Ask this node's kernel as well, and say where it differs.")
@common
def explain(common: Common, source: tuple[str, int], target: tuple[str, int], proto: Protocol, live: bool) -> int:
    """Say which real server a flow goes to, and why.

    By the cluster file alone: what every L4 node does with a new flow when all real servers are up. IPv6 as
    [ADDRESS]:PORT.
    """
    key = ServiceKey(target[0], proto, target[1])
    if (":" in source[0]) != (":" in key.vip):
        raise click.UsageError(f"{source[0]} and {key.vip} are of different families")
    cluster = load(common.paths.cluster_file)
    wanted = _wanted(common, cluster, key)
    by_file = _answer(cluster, impact.tables(wanted)[key], source)
    found: dict[str, Any] = {
        "flow": f"{_host(*source)} -> {key}",
        "l4": list(cluster.with_role("l4")),
        "file": by_file,
        "live": _live(cluster, key, source, wanted) if live else None,
    }
    common.show(found, "\n".join(_lines(found)))
    return 0


def _wanted(common: Common, cluster: Cluster, key: ServiceKey) -> list[Row]:
    """The service's rows on any L4 node: they are the same on all."""
    node = next(iter(cluster.with_role("l4")))
    unknown: dict[Probe, Health] = {}
    desired = desired_state(Identity(node, "l4", common.paths), cluster, READY, unknown)
    rows = [row for row in desired.rows if isinstance(row, TABLE_ROWS) and not row.service.carries_probes]
    if all(row.service != key for row in rows):
        others = ", ".join(dict.fromkeys(str(row.service) for row in rows))
        raise Missing(f"cannot explain {key}: no service of the cluster file has it; there is {others}")
    return [row for row in rows if row.service == key]


def _live(cluster: Cluster, key: ServiceKey, source: tuple[str, int], wanted: Sequence[Row]) -> dict[str, Any]:
    """The same by this node's kernel; its table may hold what the file does not know."""
    from lbnode.ipvs import live, rows

    service = live.read(key)
    if service is None:
        return {"service": False}
    known = {row.address: row.table_weight for row in wanted if isinstance(row, Destination)}
    usual = impact.usual(record.weight for record in service.records)
    servers = [
        Server(record.address, record.port, record.weight, known.get(record.address, usual))
        for record in service.records
    ]
    entry = live.entry(key, *source)
    strangers = [rows.foreign_destination(key, item) for item in service.records if not rows.is_ours(key, item)]
    found: dict[str, Any] = {
        "service": True,
        "entry": entry
        and {
            "server": _server(cluster, entry.address),
            "port": entry.port,
            "state": entry.state,
            "expires_s": entry.expires_s,
        },
        "scheduler": service.scheduler,
        "differences": [str(change) for change in diff(service.rows, wanted).changes] + strangers,
    }
    if service.scheduler == impact.SCHEDULER:
        found |= _answer(cluster, maglev.build(servers, impact.family(key), flags=service.flags), source)
    return found


def _answer(cluster: Cluster, table: Table, source: tuple[str, int]) -> dict[str, Any]:
    answer = maglev.lookup(table, *source)
    holder = table.servers[table.slots[answer.slot]].address if table.slots else ""
    return {
        "server": answer.server and _server(cluster, answer.server.address),
        "slot": answer.slot,
        "slots": table.size,
        "fallback": answer.fallback,
        "holder": _server(cluster, holder) if holder else None,
        "table": maglev.fingerprint(table),
    }


def _server(cluster: Cluster, address: str) -> dict[str, str]:
    """The name is empty when the file does not have the address."""
    names = [name for name, node in cluster.nodes.items() if address in (str(node.ipv4), str(node.ipv6))]
    return {"name": "".join(names), "address": address}


def _lines(found: dict[str, Any]) -> list[str]:
    by_file, live = found["file"], found["live"]
    lines = [
        found["flow"],
        f"by the file: {_way(by_file)}",
        f"the same on every L4 node while all servers are up: {', '.join(found['l4'])}",
    ]
    if live is None:
        return lines
    if not live["service"]:
        return [*lines, "on this node: there is no such virtual service"]
    if entry := live["entry"]:
        why = f"by its entry, {entry['state']}, {entry['expires_s']} s left"
        lines.append(f"on this node: {_named(entry['server'])}, {why}")
    if "slot" not in live:
        return [*lines, f"a new flow on this node: scheduler {live['scheduler']} decides, not a Maglev table"]
    lines.append(f"{'a new flow ' if entry else ''}on this node: {_way(live)}")
    if live["server"] != by_file["server"]:
        lines.append("this node and the file differ on this flow")
    return lines + [f"differs: {line}" for line in live["differences"]]


def _way(answer: dict[str, Any]) -> str:
    """`l7-3 (192.0.2.153), slot 2964 of 4093, table d4e179d82051`, and why where it is not the slot's own server."""
    where = _named(answer["server"]) if answer["server"] else "nowhere, dropped"
    words = f"{where}, slot {answer['slot']} of {answer['slots']}, table {answer['table']}"
    if answer["holder"] is None:
        return f"{words}: no server holds a slot"
    if answer["fallback"] or answer["server"] is None:
        how = "by fallback, for" if answer["fallback"] else "because"
        return f"{words}: {how} {_named(answer['holder'])} is at weight 0"
    return words


def _named(server: dict[str, str]) -> str:
    return f"{server['name']} ({server['address']})" if server["name"] else server["address"]


def _host(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
