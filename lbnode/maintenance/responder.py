"""The agent-check responder: tells whoever connects what people have set this node to, in one line, and closes.

HAProxy opens all its agent checks within the same interval, so the listener has a long queue. An answer is one write,
which never waits: it fits into the socket's buffer; and nothing is ever read. So no client can hold a connection, and a
stranger's is closed before the files are looked at.
"""

import asyncio
from collections.abc import Callable

from lbnode.errors import LbnodeError
from lbnode.maintenance.state import AdminState, answer

BACKLOG = 1024


class _Responder(asyncio.Protocol):
    def __init__(self, state: Callable[[], AdminState], welcome: Callable[[object], bool]) -> None:
        self._state, self._welcome = state, welcome

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        peer = transport.get_extra_info("peername")
        if peer and self._welcome(peer[0]):
            transport.write(answer(self._state()))
        transport.close()


async def serve(
    state: Callable[[], AdminState], port: int, welcome: Callable[[object], bool] = lambda _address: True
) -> asyncio.Server:
    """Listens on every address of both families; answers those whose address (text) is welcome. Raises LbnodeError when
    the port is taken."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            lambda: _Responder(state, welcome),
            host=["0.0.0.0", "::"],  # noqa: S104 - every address of the node, as other nodes ask on either family
            port=port,
            backlog=BACKLOG,
        )
    except OSError as error:
        raise LbnodeError(f"cannot listen on agent-check port {port}: {error.strerror or error}") from error
