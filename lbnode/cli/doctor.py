"""`lbnode doctor`: whether this host can play its role, and how to mend what is in the way. It changes nothing."""

from collections import Counter

import click

from lbnode.cli.options import Common, common, role_option
from lbnode.node import load_cluster
from lbnode.plan import counted


@click.command()
@role_option
@common
def doctor(common: Common, role: str | None) -> int:
    """Check this host, and say how to mend what is wrong.

    Modules, settings, tunnels and VIPs, MTU and MSS, HAProxy and BGP, permissions. Exits 1 when a check fails; a
    warning is no failure. It changes nothing.
    """
    from lbnode.doctor.examine import examine

    identity = common.identity(role)
    findings = examine(identity, load_cluster(identity))
    count = Counter(finding.verdict for finding in findings)
    unknown = f", {count['unknown']} unknown" if count["unknown"] else ""
    summary = f"{count['ok']} ok, {counted(count['warn'], 'warning')}{unknown}, {counted(count['fail'], 'failure')}"
    value = {"node": identity.name, "role": identity.role, "findings": [finding.as_json() for finding in findings]}
    common.show(value, "\n".join([*map(str, findings), summary]))
    return 1 if count["fail"] else 0
