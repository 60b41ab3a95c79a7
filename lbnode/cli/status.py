"""`lbnode status`: what this node does and why."""

import time
from typing import Any

import click

from lbnode.agent import control
from lbnode.bgp import elsewhere
from lbnode.bgp import report as bgp
from lbnode.cli.options import Common, common
from lbnode.cli.view import current
from lbnode.node import announces, drivers
from lbnode.reconcile import plan


@click.command()
@common
def status(common: Common) -> int:
    """Say what this node does and why. Exits 1 when something is not as it should be."""
    found = control.ask(common.paths, "status") or _without_agent(common)
    if "route_table" in found:
        found |= elsewhere.report(found["route_table"])
    common.show(found, "\n".join(_lines(found)))
    return 1 if found["problems"] else 0


def _without_agent(common: Common) -> dict[str, Any]:
    """The same picture when no agent is running: from the files, one round of probes, and the live system."""
    identity = common.identity(None)
    view = current(identity)
    left = plan(view.desired, drivers(identity))
    from lbnode.chance import program as classifier
    from lbnode.haproxy import program

    return {
        "second_chance": classifier.seen(identity.paths.bpf) if identity.role != "l4" else {},
        "haproxy": program.seen(identity.paths) if identity.role == "l7" else None,
        "node": identity.name,
        "role": identity.role,
        "agent": None,
        "admin": str(view.reading.state),
        "admin_mode": str(view.reading.state.mode),
        "admin_next": view.reading.next,
        "verdicts": [verdict.as_json() for verdict in view.desired.verdicts],
        **(bgp.report(view.cluster.bgp, identity.paths) if announces(identity, view.cluster) else {}),
        "tables": left.tables_as_json(),
        "last_pass": {"changes": len(left.changes), "foreign": list(left.foreign)},
        "problems": ["agent: not running", *(f"differs: {change}" for change in left.changes)],
        "recent": [],
    }


def _lines(found: dict[str, Any]) -> list[str]:
    agent, last = found["agent"], found["last_pass"]
    lines = [f"{found['node']} ({found['role']}): {found['admin']}"]
    if agent:
        lines.append(f"agent: pid {agent['pid']}, running {_ago(agent['since'])}; last pass {_ago(last.get('at'))} ago")
    if leaving := found.get("leaving"):
        since = f" for {_ago(leaving['since'])}" if leaving["since"] else ""
        lines.append(f"leaving{since}: {leaving['phase']}, {leaving['waits_for']}")
    lines += [f"{v['kind']} {v['name']}: {v['state']}  # {v['reason']}" for v in found["verdicts"]]
    if "route_table" in found:
        lines.append(elsewhere.line(found))
    lines += bgp.lines(found)
    lines += [f"table {service}: {_table(table)}" for service, table in found.get("tables", {}).items()]
    if counted := found.get("second_chance"):
        lines.append(f"second chance: packets {', '.join(f'{count} {why}' for why, count in counted.items() if count)}")
    lines += _haproxy(found)
    lines += [f"left alone: {row}" for row in last.get("foreign", [])]
    lines += [f"problem: {problem}" for problem in found["problems"]]
    if found["recent"]:
        lines.append("recent:")
        lines += [f"  {_ago(item['at'])} ago  {item['cause']}: {item['change']}" for item in found["recent"][-5:]]
    return lines


def _haproxy(found: dict[str, Any]) -> list[str]:
    if not found.get("haproxy"):
        return ["HAProxy: does not answer"] if found["role"] == "l7" else []
    from lbnode.haproxy import stats

    return stats.lines(found["haproxy"])


def _table(table: dict[str, Any]) -> str:
    """`3fa94b1c77aa`, and how it differs when it does."""
    mark = table["fingerprint"] or "none of ours alone"
    return mark if table["equal"] else f"{mark}  # should be {table['wanted'] or 'none'}"


def _ago(moment: float | None) -> str:
    if moment is None:
        return "never"
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
