"""`lbnode schema`: the JSON Schema of the cluster file, for editors."""

import json

import click


@click.command()
def schema() -> int:
    """Print the JSON Schema of the cluster file."""
    from lbnode.config.load import schema as cluster_schema

    click.echo(json.dumps(cluster_schema(), indent=2))
    return 0
