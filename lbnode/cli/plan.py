"""`lbnode plan`: what would change, against the live system. It changes nothing."""

import click

from lbnode.cli.options import Common, common, role_option
from lbnode.cli.view import current
from lbnode.node import drivers
from lbnode.plan import counted
from lbnode.reconcile import plan as make_plan


@click.command()
@role_option
@click.option("--exit-code", is_flag=True, help="Exit 1 when there are changes.")
@common
def plan(common: Common, role: str | None, exit_code: bool) -> int:
    """Show what `apply` would change on this node."""
    identity = common.identity(role)
    found = make_plan(current(identity).desired, drivers(identity))
    summary = counted(len(found.changes), "change") if found else "nothing to do"
    common.show(found.as_json(), f"{found}\n{summary}".lstrip("\n"))
    return 1 if exit_code and found else 0
