"""`lbnode check`: every mistake in the cluster file at once, each with its place and how to mend it; and warnings
of what works but is seldom meant."""

from pathlib import Path

import click

from lbnode.cli.options import Common, common
from lbnode.errors import ConfigError


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@common
def check(common: Common, file: Path | None) -> int:
    """Validate the cluster file (FILE, or the one in use).

    Warnings are printed and refuse nothing: with them alone it exits 0.
    """
    from lbnode.config.advice import advice
    from lbnode.config.load import load

    path = file or common.paths.cluster_file
    try:
        cluster = load(path)
    except ConfigError as error:
        if not common.as_json:
            raise
        problems = [problem.__dict__ for problem in error.problems]
        common.show({"file": str(path), "problems": problems, "warnings": []}, "")
        return error.exit_code
    counts = {role: len(cluster.with_role(role)) for role in ("l4", "l7", "backend")}
    nodes = ", ".join(f"{count} {role}" for role, count in counts.items())
    warnings = advice(cluster)
    for warning in [] if common.as_json else warnings:
        click.echo(f"warning: {warning}", err=True)
    value = {
        "file": str(path),
        "problems": [],
        "warnings": list(warnings),
        "nodes": counts,
        "services": len(cluster.services),
    }
    common.show(value, f"{path}: good: {nodes}; {len(cluster.services)} services")
    return 0
