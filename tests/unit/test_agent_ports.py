"""What strangers and broken clients can do to the agent-check port and the control socket: nothing."""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

import pytest
from cluster import small

from lbnode.agent import control
from lbnode.agent.http import Guests
from lbnode.maintenance import responder
from lbnode.maintenance.state import READY
from lbnode.paths import Paths

MANY = int(os.environ.get("LBNODE_RANDOM_SEQUENCES", "2000"))
"""Random byte sequences for each of the two; `make hostile-test` has 100,000."""
AT_ONCE = 100
ANSWER = b"up ready 100%\n"
ASKED = b'{"ask": "status"}\n'


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


def noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 3, 30, 300, 3000)))


@contextmanager
def answering(*words: str) -> Iterator[str]:
    """In a process of its own, as clients find it; it must have handled all that came."""
    argv = [sys.executable, str(Path(__file__).with_name("answering.py")), *words]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        yield one.stdout.readline().strip()
        assert one.communicate(timeout=30) == ("", "")
        assert one.returncode == 0


def answers(connect: Callable[[], socket.socket], sent: Iterable[bytes]) -> Counter[bytes]:
    """What comes back for each, AT_ONCE of them side by side."""
    found: Counter[bytes] = Counter()
    waiting = iter(sent)
    while group := list(islice(waiting, AT_ONCE)):
        clients = [connect() for _ in group]
        for client, data in zip(clients, group, strict=True):
            with suppress(OSError):  # the other side has ended it already
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
        found.update(map(answer, clients))
    return found


def answer(client: socket.socket) -> bytes:
    """All of it; a client that has sent what nobody read may find its connection reset, after the answer or before."""
    with client:
        parts = []
        try:
            while part := client.recv(1 << 16):
                parts.append(part)
        except ConnectionError:
            return b"reset"
        return b"".join(parts)


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
    dice = random.Random(1)  # noqa: S311 - the same each time
    with answering("port") as port:
        found = answers(lambda: by_tcp(int(port)), (noise(dice) for _ in range(MANY)))
    assert found.total() == MANY
    assert set(found) <= {ANSWER, b"reset"}


def by_tcp(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def test_clients_that_stay_do_not_keep_others_out() -> None:
    """Neither 1,000 that never close, nor a burst of 200 at once."""

    async def ask() -> list[object]:
        async with agent_check(lambda _address: True) as port, AsyncExitStack() as stack:
            for _ in range(1000):
                idle = socket.create_connection(("127.0.0.1", port))
                stack.callback(idle.close)
                await asyncio.sleep(0)
            return list(await asyncio.gather(*(said(port) for _ in range(200))))

    assert asyncio.run(ask()) == [ANSWER] * 200


@pytest.fixture
def paths() -> object:
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        yield Paths(Path(folder), Path(folder))


def by_unix(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def test_bytes_at_the_control_socket(paths: Paths) -> None:
    dice = random.Random(2)  # noqa: S311 - the same each time
    odd = [b"[" * 60_000, b"x" * 200_000, b'{"ask": ["status"]}', b'{"ask": null}', b"\xff\n", b"", b"\n", b"1\n"]
    with answering("socket", str(paths.run)) as path:
        found = answers(lambda: by_unix(path), chain(odd, (noise(dice) for _ in range(MANY))))
        assert answers(lambda: by_unix(path), [ASKED]) == {b'{"well": true}\n': 1}
    assert found.total() == MANY + len(odd)
    assert all(one == b"reset" or set(json.loads(one)) == {"error"} for one in found)


def test_1000_that_say_nothing_do_not_keep_others_from_the_control_socket(paths: Paths) -> None:
    with answering("socket", str(paths.run)) as path, ExitStack() as stack:
        idle = [stack.enter_context(by_unix(path)) for _ in range(1000)]
        assert answers(lambda: by_unix(path), [ASKED]) == {b'{"well": true}\n': 1}
        for client in idle:
            client.shutdown(socket.SHUT_WR)
        assert all(b"error" in answer(client) for client in idle)


def test_slow_clients_are_given_up(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that asks letter by letter, and one that does not take what it has asked for."""
    monkeypatch.setattr(control, "PATIENCE_S", 0.2)

    async def slow() -> tuple[bytes, int]:
        server = await control.serve(paths, {"status": lambda: {"much": "x" * (8 << 20)}})
        reader, writer = await asyncio.open_unix_connection(paths.agent_socket)
        greedy = await asyncio.open_unix_connection(paths.agent_socket, limit=1 << 10)
        greedy[1].write(ASKED)
        answered = asyncio.create_task(reader.read())
        for letter in ASKED.decode():
            if answered.done():
                break
            writer.write(letter.encode())
            await asyncio.wait([answered], timeout=0.05)
        told = await asyncio.wait_for(answered, 5)
        if serving := [one for one in asyncio.all_tasks() if "connected" in repr(one.get_coro())]:
            await asyncio.wait(serving, timeout=5)
        taken = len(await asyncio.wait_for(greedy[0].read(), 5))
        for one in (writer, greedy[1]):
            one.close()
        server.close()
        return told, taken

    told, taken = asyncio.run(slow())
    assert b"cannot understand" in told
    assert taken < 8 << 20
