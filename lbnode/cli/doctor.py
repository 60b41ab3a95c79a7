"""`lbnode doctor`: whether this host can play its role, and how to mend what is in the way. It changes nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lbnode.cli.options import Common, common
from lbnode.node import load_cluster
from lbnode.plan import counted

if TYPE_CHECKING:
    from lbnode.doctor.finding import Finding


@click.command()
@click.option(
    "--role",
    type=click.Choice(["l4", "l7", "backend", "router"]),
    help="The node's role; the cluster file's if left out. router: a Linux router in front of the nodes.",
)
@common
def doctor(common: Common, role: str | None) -> int:
    """Check this host, and say how to mend what is wrong.

    Modules, settings, tunnels and VIPs, MTU and MSS, HAProxy and BGP, permissions; of a router, what it makes of the
    announcements: next hops, hash policy, filters. Exits 1 when a check fails; a warning is no failure. It changes
    nothing.
    """
    if role == "router":
        from lbnode.config.load import load
        from lbnode.doctor.examine_router import examine_router

        return _show(common, common.node, role, examine_router(load(common.paths.cluster_file)))
    from lbnode.doctor.examine import examine

    identity = common.identity(role)
    return _show(common, identity.name, identity.role, examine(identity, load_cluster(identity)))


def _show(common: Common, name: str, role: str, findings: "Sequence[Finding]") -> int:
    count = Counter(finding.verdict for finding in findings)
    unknown = f", {count['unknown']} unknown" if count["unknown"] else ""
    summary = f"{count['ok']} ok, {counted(count['warn'], 'warning')}{unknown}, {counted(count['fail'], 'failure')}"
    value = {"node": name, "role": role, "findings": [finding.as_json() for finding in findings]}
    common.show(value, "\n".join([*map(str, findings), summary]))
    return 1 if count["fail"] else 0
