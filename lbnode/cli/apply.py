"""`lbnode apply`: one pass. It is enough to serve: the wanted announcements are left for the BGP speaker."""

import click

from lbnode.agent import control
from lbnode.cli.options import Common, common, role_option
from lbnode.cli.view import current
from lbnode.lock import exclusive
from lbnode.node import announced_by, drivers, note_flaps
from lbnode.plan import counted
from lbnode.reconcile import run


@click.command()
@role_option
@click.option("--force", is_flag=True, help="Carry out a plan that is refused as dangerous.")
@common
def apply(common: Common, role: str | None, force: bool) -> int:
    """Make this node right, and say what was done."""
    identity = common.identity(role)
    if not control.listens(identity.paths):
        # From here on nobody has to be alive: a dead agent's rule must not undo what a person does.
        identity.paths.bgp_heartbeat.unlink(missing_ok=True)
    found = current(identity, prepare=True)
    with exclusive(identity.paths.lock):
        before = announced_by(identity, found.cluster)
        done = run(found.desired, drivers(identity), force=force)
        note_flaps(identity, found.cluster, found.reading.state, before, found.desired)
    control.ask(identity.paths, "wake")
    carried_out = [result for result in done.results if not result.error]
    lines = [str(result) for result in carried_out]
    lines.append(f"{counted(len(carried_out), 'change')} made" if done.plan else "nothing to do")
    if not done.errors:
        lines += [f"{verdict.kind} {verdict.name}: {verdict.state}" for verdict in found.desired.verdicts]
    common.show({**done.as_json(), "verdicts": [v.as_json() for v in found.desired.verdicts]}, "\n".join(lines))
    done.raise_if_failed()
    return 0
