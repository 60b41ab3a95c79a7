"""`lbnode drain`, `maint`, `ready`: write the maintenance files; the agent acts on them."""

import time
from dataclasses import replace

import click

from lbnode.agent import control
from lbnode.cli.options import Common, common
from lbnode.errors import LbnodeError, NotReady
from lbnode.maintenance.calm import seconds
from lbnode.maintenance.files import write
from lbnode.maintenance.state import READY, AdminState, Mode


class Span(click.ParamType[int]):
    """A time such as 90s, 5min, 2h or 1h30m; in seconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else seconds(str(value))
        except LbnodeError as error:
            self.fail(str(error), param, ctx)


reason_option = click.option("--reason", default="", help="Why, for status and for whoever looks next.")
for_option = click.option("--for", "lasting", type=Span(), help="Be ready again after that time, by itself: 2h.")
boot_option = click.option(
    "--until-reboot", "this_boot", is_flag=True, help="Forget it at the next boot: the file is one in /run."
)
wait_option = click.option("--wait", is_flag=True, help="Return when nothing is announced and no flow is left.")
timeout_option = click.option(
    "--timeout", type=Span(), help="Wait no longer than that; exit 75 if flows are left then."
)


def _set(common: Common, state: AdminState, this_boot: bool = False) -> dict[str, object]:
    """Writes the state and wakes the agent. Returns what was done, for `_show`."""
    write(common.paths, state, this_boot)
    told = control.ask(common.paths, "wake") is not None
    file = common.paths.boot_agent_check if this_boot else common.paths.agent_check
    return {"file": str(file), "state": str(state), "agent": told}


def _set_and_wait(common: Common, state: AdminState, this_boot: bool, wait: bool, timeout: int | None) -> int:
    """Exit status 75 when the time was over before the flows."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout belongs to --wait")
    if not wait:
        return _show(common, _set(common, state, this_boot))
    from lbnode.cli.waiting import until_calm, watched

    # What cannot be watched is said before anything is changed.
    watch = watched(common)
    done = _set(common, state, this_boot)
    found = until_calm(watch, timeout)
    _show(common, {**done, **found})
    return 0 if found["ended"] else NotReady.exit_code


def _show(common: Common, done: dict[str, object]) -> int:
    text = f"{done['file']}: {done['state']}"
    if not done["agent"]:
        text += "\nno agent is running here: `lbnode apply` makes it so"
    if "flows" in done:
        text += f"\nflows: {done['flows']}, after {done['seconds']} s"
    common.show(done, text)
    return 0


def _lasting(state: AdminState, lasting: int | None) -> AdminState:
    return state if lasting is None else replace(state, until=int(time.time()) + lasting)


@click.command()
@reason_option
@for_option
@click.option("--deadline", type=Span(), help="End the flows that are left after that time, by itself: 30min.")
@boot_option
@wait_option
@timeout_option
@common
def drain(
    common: Common,
    reason: str,
    lasting: int | None,
    deadline: int | None,
    this_boot: bool,
    wait: bool,
    timeout: int | None,
) -> int:
    """Take no new flows; keep the ones there are.

    Times are such as 90s, 5min, 2h or 1h30m.
    """
    if lasting is not None and deadline is not None and lasting <= deadline:
        raise click.UsageError("--for must be longer than --deadline: the node would be ready again before it")
    state = _lasting(AdminState(Mode.DRAIN, "drain", reason=reason), lasting)
    if deadline is not None:
        state = replace(state, deadline=int(time.time()) + deadline)
    return _set_and_wait(common, state, this_boot, wait, timeout)


@click.command()
@reason_option
@for_option
@click.option("--now", is_flag=True, help="Withdraw what it announces at once, without the steps that spare flows.")
@boot_option
@wait_option
@timeout_option
@common
def maint(
    common: Common,
    reason: str,
    lasting: int | None,
    now: bool,
    this_boot: bool,
    wait: bool,
    timeout: int | None,
) -> int:
    """Take this node out of service.

    Times are such as 90s, 5min, 2h or 1h30m.
    """
    state = _lasting(AdminState(Mode.MAINT, "maint", reason=reason, at_once=now), lasting)
    return _set_and_wait(common, state, this_boot, wait, timeout)


@click.command()
@common
def ready(common: Common) -> int:
    """Put this node back into service."""
    return _show(common, _set(common, READY))
