"""Connections that last as long as an experiment, and say at its end whether they survived it.

Each crawls: a little data once per `tick_s`, so that a flow that the network sends elsewhere meets a machine that does
not know it and is broken within a tick. Told to finish, it completes what it is at, at full speed, and checks it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lbnode.lab import web
from lbnode.lab.clients.http import Broken, Connection, length, request

CHUNK = 1024
RECEIVE_BUFFER = 4096
FILE_BYTES = web.SIZES[0]


@dataclass
class Flow:
    """One client's connection through an experiment. `begun` is set when the first answer or bytes have passed."""

    kind: str
    source: str
    vip: str
    tick_s: float = 1.0
    vip_port: int = 80
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    finishing: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    backend: str = ""
    moved: int = 0
    rounds: int = 0
    broken: str = ""
    stall_s: float = 0.0
    ended: bool = False

    async def run(self) -> None:
        """Never raises: what went wrong is in `broken`."""
        buffer = RECEIVE_BUFFER if self.kind == "download" else 0
        connection = Connection(self.source, self.vip, self.vip_port, buffer)
        try:
            await connection.open()
            self.port = connection.port
            while not (self.finishing.is_set() and self.rounds):
                await KINDS[self.kind](self, connection)
                self.rounds += 1
        except Broken as problem:
            self.broken = str(problem)
        finally:
            connection.close()
            self.ended = True
            self.begun.set()

    async def pause(self) -> None:
        """One tick, or none any more when the flow is to finish. The first one is cut at random: flows spread out."""
        if self.finishing.is_set():
            return
        share = 1.0 if self.begun.is_set() else random.random()  # noqa: S311 - nothing secret here
        self.begun.set()
        try:
            async with asyncio.timeout(self.tick_s * share):
                await self.finishing.wait()
        except TimeoutError:
            return

    def passed(self, count: int, since: float) -> None:
        """Notes that `count` bytes have passed, after waiting since a time (monotonic)."""
        self.moved += count
        self.stall_s = max(self.stall_s, time.monotonic() - since)

    def as_json(self) -> dict[str, Any]:
        names = ("kind", "source", "port", "vip", "backend", "moved", "rounds", "broken", "ended")
        return {name: getattr(self, name) for name in names} | {"stall_s": round(self.stall_s, 2)}


async def download(flow: Flow, connection: Connection) -> None:
    """One file, a chunk per tick; every byte is compared."""
    await connection.send(request("GET", f"/files/{FILE_BYTES}", flow.vip))
    answer = await connection.head()
    if answer.status != 200 or length(answer) != FILE_BYTES:
        raise Broken(f"status {answer.status}, {length(answer)} bytes")
    flow.backend = answer.headers.get("x-backend", "")
    done = 0
    while done < FILE_BYTES:
        await flow.pause()
        since = time.monotonic()
        data = await connection.receive(65536 if flow.finishing.is_set() else CHUNK)
        if data != web.content(done, done + len(data)):
            raise Broken(f"wrong bytes at {done}")
        done += len(data)
        flow.passed(len(data), since)


async def upload(flow: Flow, connection: Connection) -> None:
    """One body, a chunk per tick; the server's count is compared."""
    await connection.send(request("PUT", "/upload", flow.vip, FILE_BYTES))
    done = 0
    while done < FILE_BYTES:
        await flow.pause()
        since = time.monotonic()
        step = FILE_BYTES - done if flow.finishing.is_set() else CHUNK
        await connection.send(web.content(done, min(done + step, FILE_BYTES)))
        flow.passed(step, since)
        done += step
    answer = await connection.head()
    counted = (await connection.receive(length(answer))).decode().strip()
    flow.backend = answer.headers.get("x-backend", "")
    if answer.status != 200 or counted != str(FILE_BYTES):
        raise Broken(f"status {answer.status}, {counted} of {FILE_BYTES} bytes arrived")


async def requests(flow: Flow, connection: Connection) -> None:
    """One small request per tick on a connection that is kept."""
    await flow.pause()
    since = time.monotonic()
    answer = await connection.get("/")
    if answer.status != 200:
        raise Broken(f"status {answer.status}")
    flow.backend = answer.body.decode().strip()
    flow.passed(len(answer.body), since)


KINDS: dict[str, Callable[[Flow, Connection], Awaitable[None]]] = {
    "download": download,
    "upload": upload,
    "requests": requests,
}
