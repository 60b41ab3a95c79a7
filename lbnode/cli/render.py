"""`lbnode render`: prints a generated file as it would be written."""

import click

from lbnode.cli.options import Common, common
from lbnode.errors import Missing
from lbnode.health.state import Health
from lbnode.maintenance.state import READY
from lbnode.node import desired_state, load_cluster
from lbnode.resources import File


@click.command()
@click.argument("what", type=click.Choice(["haproxy", "exabgp"]))
@common
def render(common: Common, what: str) -> int:
    """Print haproxy.cfg or exabgp.conf of this node (choose another with --node)."""
    identity = common.identity(None)
    unknown: dict[object, Health] = {}
    desired = desired_state(identity, load_cluster(identity), READY, unknown)  # type: ignore[arg-type]
    for row in desired.rows:
        if isinstance(row, File) and row.checker == what:
            common.show({"path": row.path, "content": row.content}, row.content.rstrip("\n"))
            return 0
    raise Missing(f"cannot render {what}: {identity.name} ({identity.role}) has none; choose another node with --node")
