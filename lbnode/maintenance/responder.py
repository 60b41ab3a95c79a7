"""The agent-check responder: tells whoever connects what people have set this node to, in one line, and closes.

HAProxy opens all its agent checks within the same interval, so the listener has a long queue; an answer is one write.
"""

import asyncio
from collections.abc import Callable

from lbnode.errors import LbnodeError
from lbnode.maintenance.state import AdminState, answer

BACKLOG = 1024


class _Responder(asyncio.Protocol):
    def __init__(self, state: Callable[[], AdminState]) -> None:
        self._state = state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(answer(self._state()))
            transport.close()


async def serve(state: Callable[[], AdminState], port: int) -> asyncio.Server:
    """Listens on every address of both families. Raises LbnodeError when the port is taken."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            lambda: _Responder(state),
            host=["0.0.0.0", "::"],  # noqa: S104 - every address of the node, as other nodes ask on either family
            port=port,
            backlog=BACKLOG,
        )
    except OSError as error:
        raise LbnodeError(f"cannot listen on agent-check port {port}: {error.strerror or error}") from error
