"""`lbnode drain`, `maint`, `ready`: write the maintenance files; the agent acts on them."""

import click

from lbnode.agent import control
from lbnode.cli.options import Common, common
from lbnode.maintenance.files import write
from lbnode.maintenance.state import READY, AdminState, Mode

reason_option = click.option("--reason", default="", help="Why, for status and for whoever looks next.")


def _set(common: Common, state: AdminState) -> int:
    write(common.paths, state)
    told = control.ask(common.paths, "wake") is not None
    text = f"{common.paths.agent_check}: {state}"
    if not told:
        text += "\nno agent is running here: `lbnode apply` makes it so"
    common.show({"file": str(common.paths.agent_check), "state": str(state), "agent": told}, text)
    return 0


@click.command()
@reason_option
@common
def drain(common: Common, reason: str) -> int:
    """Take no new flows; keep the ones there are."""
    return _set(common, AdminState(Mode.DRAIN, "drain", reason=reason))


@click.command()
@reason_option
@common
def maint(common: Common, reason: str) -> int:
    """Take this node out of service."""
    return _set(common, AdminState(Mode.MAINT, "maint", reason=reason))


@click.command()
@common
def ready(common: Common) -> int:
    """Put this node back into service."""
    return _set(common, READY)
