"""What strangers and broken clients can do to the agent-check port and the control socket: nothing."""

import asyncio
import json
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from cluster import small

from lbnode.agent import control
from lbnode.agent.http import Guests
from lbnode.maintenance import responder
from lbnode.maintenance.state import READY
from lbnode.paths import Paths

MANY = int(os.environ.get("LBNODE_RANDOM_SEQUENCES", "2000"))
"""Random byte sequences for each of the two."""
ANSWER = b"up ready 100%\n"


@asynccontextmanager
async def agent_check(welcome: Callable[[object], bool]) -> AsyncIterator[int]:
    server = await responder.serve(lambda: READY, 0, welcome)
    port = next(one.getsockname()[1] for one in server.sockets if one.family == socket.AF_INET)
    try:
        yield int(port)
    finally:
        server.close()
        await server.wait_closed()


async def said(port: int, sent: bytes = b"", source: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    with suppress(ConnectionError):
        writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


async def in_groups(number: int, one: Callable[[], Awaitable[object]], at_once: int = 50) -> list[object]:
    found: list[object] = []
    for start in range(0, number, at_once):
        found += await asyncio.gather(*(one() for _ in range(min(at_once, number - start))))
    return found


def noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 3, 30, 300, 3000)))


def test_only_the_clusters_own_nodes_are_answered_and_who_is_allowed() -> None:
    guests = Guests(small(), small().agent_check.allow)
    for address in ("192.0.2.193", "2001:db8:c000:280::193", "127.0.0.1", "::1"):
        assert address in guests
    for address in ("192.0.2.7", "203.0.113.1", "2001:db8::9", "", None, "x"):
        assert address not in guests

    async def ask() -> tuple[bytes, bytes]:
        async with agent_check(lambda address: address == "127.0.0.1") as port:
            return await said(port), await said(port, source="127.0.0.2")

    assert asyncio.run(ask()) == (ANSWER, b"")


def test_bytes_at_the_agent_check_port() -> None:
    async def ask() -> set[object]:
        dice = random.Random(1)  # noqa: S311 - the same each time
        async with agent_check(lambda _address: True) as port:
            return set(await in_groups(MANY, lambda: said(port, noise(dice))))

    # What a client has sent unread may make the kernel end the connection with RST, after the answer or before it.
    assert asyncio.run(ask()) <= {ANSWER, b"reset"}


def test_clients_that_stay_do_not_keep_others_out() -> None:
    """Neither 1,000 that never close, nor a burst of 200 at once."""

    async def ask() -> list[object]:
        async with agent_check(lambda _address: True) as port, AsyncExitStack() as stack:
            for _ in range(1000):
                idle = socket.create_connection(("127.0.0.1", port))
                stack.callback(idle.close)
                await asyncio.sleep(0)
            return await in_groups(200, lambda: said(port), at_once=200)

    assert asyncio.run(ask()) == [ANSWER] * 200


@pytest.fixture
def paths() -> object:
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        yield Paths(Path(folder), Path(folder))


async def told(paths: Paths, sent: bytes) -> object:
    reader, writer = await asyncio.open_unix_connection(paths.agent_socket)
    with suppress(ConnectionError):
        writer.write(sent)
        writer.write_eof()
    try:
        return json.loads(await asyncio.wait_for(reader.read(), 10) or b"null")
    except ConnectionError:
        return None
    finally:
        writer.close()


def test_bytes_at_the_control_socket(paths: Paths) -> None:
    unhandled: list[object] = []

    async def ask() -> list[object]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
        dice = random.Random(2)  # noqa: S311 - the same each time
        server = await control.serve(paths, {"status": lambda: {"well": True}})
        odd = [b"[" * 60_000, b"x" * 200_000, b'{"ask": ["status"]}', b'{"ask": null}', b"\xff\n", b"", b"\n", b"1\n"]
        try:
            found = [await told(paths, one) for one in odd]
            found += await in_groups(MANY, lambda: told(paths, noise(dice)))
            return [*found, await told(paths, b'{"ask": "status"}\n')]
        finally:
            server.close()

    *refused, good = asyncio.run(ask())
    assert good == {"well": True}
    assert unhandled == []
    assert all(answer is None or set(answer) == {"error"} for answer in refused)


def test_idle_connections_do_not_keep_others_from_the_control_socket(paths: Paths) -> None:
    async def ask() -> object:
        server = await control.serve(paths, {"status": lambda: {"well": True}})
        try:
            idle = [await asyncio.open_unix_connection(paths.agent_socket) for _ in range(100)]
            answer = await told(paths, b'{"ask": "status"}\n')
            for reader, writer in idle:
                writer.write_eof()
                assert b"error" in await reader.read()
                writer.close()
            return answer
        finally:
            server.close()

    assert asyncio.run(ask()) == {"well": True}
