"""`lbnode agent`: the long-running form of `apply`."""

import click

from lbnode.cli.options import Common, common, role_option


@click.command()
@role_option
@common
def agent(common: Common, role: str | None) -> int:
    """Keep this node right until SIGTERM."""
    import asyncio

    from lbnode.agent.loop import Agent

    async def serve() -> None:
        await Agent(common.identity(role)).run()

    asyncio.run(serve())
    return 0
