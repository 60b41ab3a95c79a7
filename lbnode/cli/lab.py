"""`lbnode lab`: whole networks in namespaces, on a kernel that can: the running one, or user-mode-linux by itself."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from lbnode.lab.stacks.choice import STACKS
from lbnode.templates import share

Command = TypeVar("Command", bound=Callable[..., Any])
scale_option = click.option("--scale", default="small", show_default=True, help="How large: a scale of the topology.")
logs_option = click.option(
    "--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep the nodes' logs here."
)


def stack_option(text: str, default: str | None = None) -> Callable[[Command], Command]:
    return click.option(
        "--stack", type=click.Choice(tuple(STACKS)), default=default, show_default=default is not None, help=text
    )


@click.group()
def lab() -> None:
    """Run whole networks on a real kernel: routers, L4, L7, backends, clients."""


@lab.command("list")
def list_topologies() -> int:
    """List the topologies and their scales."""
    from lbnode.lab.layout import read

    for folder in sorted(path.parent for path in share("lab").glob("*/topology.yaml")):
        source = read(folder)
        click.echo(f"{folder.name}  {source.title} ({', '.join(source.scales)})")
    return 0


@lab.command()
@click.argument("topology")
@scale_option
@click.option("--only", "steps", multiple=True, metavar="STEP", help="Run this step only (may be given several times).")
@click.option("--rounds", type=click.IntRange(1, 100), help="How often measured steps are repeated.")
@logs_option
@stack_option("Build tiers 2 and 3 with this stack and run the disruption experiment with it.")
def run(
    topology: str, scale: str, steps: Sequence[str], rounds: int | None, logs: Path | None, stack: str | None
) -> int:
    """Bring a topology up, prove what it claims, tear it down."""
    if stack:
        if steps or rounds:
            raise click.UsageError("--stack runs the disruption experiment: it takes neither --only nor --rounds")
        return _disrupt(topology, scale, stack, (), logs)
    folder = _work(logs)
    arguments = ["run", str(_folder(topology)), scale, str(folder)]
    arguments += [f"--rounds={rounds}"] if rounds else []
    return _on_a_kernel([*arguments, *(f"--only={step}" for step in steps)], folder)


@lab.command()
@click.argument("topology")
@scale_option
@stack_option("What tiers 2 and 3 are built with.", "lbnode")
@click.option("--flows", type=click.IntRange(1, 50000), help="How many flows each event meets.  [default: 2000]")
@click.option("--event", "events", multiple=True, metavar="NAME", help="This event only (may be given several times).")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
@logs_option
def disruption(
    topology: str,
    scale: str,
    stack: str,
    flows: int | None,
    events: Sequence[str],
    json_file: Path | None,
    logs: Path | None,
) -> int:
    """Break and drain machines under thousands of slow flows; account for each flow."""
    folder = _work(logs)
    options = [f"--flows={flows}"] if flows else []
    status = _disrupt(topology, scale, stack, [*options, *(f"--event={name}" for name in events)], folder)
    result = folder / f"disruption-{stack}.json"
    if json_file and result.exists():
        json_file.write_bytes(result.read_bytes())
    return status


@lab.command()
@click.argument("topology")
@scale_option
def graph(topology: str, scale: str) -> int:
    """Draw a topology: machines, LANs, addresses, VIPs, autonomous systems. Prints SVG."""
    from lbnode.lab.build import load
    from lbnode.lab.graph import draw

    click.echo(draw(load(_folder(topology), scale)), nl=False)
    return 0


@lab.command()
@click.argument("topology")
@scale_option
@click.option("--only", "victims", multiple=True, metavar="PROGRAM", help="Harm this one only (several times: these).")
@click.option("--fault", "faults", multiple=True, metavar="NAME", help="In this way only (several times: these).")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
@logs_option
def faults(
    topology: str, scale: str, victims: Sequence[str], faults: Sequence[str], json_file: Path | None, logs: Path | None
) -> int:
    """Kill, stop and crash the programs that announce, one by one; say what routers and clients see."""
    folder = _work(logs)
    options = [*(f"--only={name}" for name in victims), *(f"--fault={name}" for name in faults)]
    status = _on_a_kernel(["faults", str(_folder(topology)), scale, str(folder), *options], folder)
    result = folder / "faults.json"
    if json_file and result.exists():
        json_file.write_bytes(result.read_bytes())
    return status


@lab.command()
@click.argument("topology")
@scale_option
def up(topology: str, scale: str) -> int:
    """Bring a topology up in the background, with everything running."""
    from lbnode.lab import session

    state = session.state_directory()
    nodes = session.up(state, [*_inside(), "serve", str(_folder(topology)), scale, str(state)])
    click.echo(f"{topology} is up: {' '.join(nodes)}")
    click.echo("lbnode lab exec NODE -- COMMAND runs a command in a node; lbnode lab down ends it", err=True)
    return 0


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(node: str, command: Sequence[str]) -> int:
    """Run COMMAND in a node of the lab that is up: lbnode lab exec r1 -- ip route."""
    from lbnode.lab import remote, session

    return remote.execute(session.state_directory(), node, command)


@lab.command()
@click.option("--flows", type=click.IntRange(1, 50000), default=2000, show_default=True, help="How many flows.")
@click.option("--for", "seconds", type=click.FloatRange(min=0.0), default=0.0, help="End after so many seconds.")
def traffic(flows: int, seconds: float) -> int:
    """Open thousands of slow flows in the lab that is up, and account for each in the end (^C)."""
    from lbnode.lab import remote, session, spool

    state = session.state_directory()
    return remote.execute(state, spool.AROUND, [*_inside(), "traffic", str(state), str(flows), f"{seconds:g}"])


@lab.command()
def down() -> int:
    """End the lab that is up."""
    from lbnode.lab import session

    click.echo("ended" if session.down(session.state_directory()) else "no lab was up", err=True)
    return 0


@lab.command(context_settings={"ignore_unknown_options": True})
@click.option("--smp", is_flag=True, help="On Debian's kernel with two processors, in QEMU: slow, but races show.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def kernel(smp: bool, command: Sequence[str]) -> int:
    """Run COMMAND on a kernel that has what labs need."""
    from lbnode.lab import kernel as door

    return door.run(command, choice="smp" if smp else "")


def _folder(topology: str) -> Path:
    folder = share("lab") / topology
    if not (folder / "topology.yaml").is_file():
        raise click.UsageError(f"no topology {topology!r}; `lbnode lab list` names them")
    return folder.absolute()


def _work(logs: Path | None) -> Path:
    folder = logs or Path(tempfile.mkdtemp(prefix="lbnode-lab-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _disrupt(topology: str, scale: str, stack: str, options: Sequence[str], logs: Path | None) -> int:
    folder = _work(logs)
    return _on_a_kernel(["disruption", str(_folder(topology)), scale, str(folder), stack, *options], folder)


def _inside() -> list[str]:
    return [sys.executable, "-m", "lbnode.lab.inside"]


def _on_a_kernel(arguments: Sequence[str], shared: Path) -> int:
    from lbnode.lab import kernel as door
    from lbnode.lab.boot import Limits

    limits = Limits(memory_mb=int(os.environ.get("LBNODE_LAB_MEMORY_MB", "6144")))
    return door.run([*_inside(), *arguments], limits, [shared.absolute()])
