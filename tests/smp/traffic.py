"""The traffic of a measurement: one process that serves for all real servers, one that plays the clients.

A *flow* is a connection that lasts: it says a line per second and gets back the name of the server that holds it, or it
is idle and says one when poked. A *call* is a new connection that says one line and is closed; some are made every
second. What became of each is kept, with the kernel's count of retransmissions (tcp(7), TCP_INFO).
"""

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from lbnode.lab.namespaces import Node

PORT = 80
TICK_S = 1.0
PATIENCE_S = 15.0
TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info (include/uapi/linux/tcp.h)


@dataclass
class Seen:
    """A flow or a call. `outcome` is empty while it lives and "ok" when a call ended well; times are monotonic."""

    version: int
    idle: bool = False
    started: float = 0.0
    ended: float = 0.0
    server: str = ""
    asked: int = 0
    answers: int = 0
    outcome: str = ""
    retransmits: int = 0


class Echo(asyncio.Protocol):
    """A server's end: its name for every line."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.name)


def serve(listeners: Sequence[tuple[str, socket.socket]]) -> None:
    """Serves on all of them, each with the name of its server; for ever."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        for name, listener in listeners:
            await loop.create_server(lambda name=name: Echo(name), sock=listener)
        await asyncio.Event().wait()

    asyncio.run(work())


class Caller(asyncio.Protocol):
    """A client's end: of a flow, or of a call, which ends with its first answer."""

    def __init__(self, seen: Seen, call: bool) -> None:
        self.seen, self.call = seen, call
        self.answered = asyncio.Event()
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.say()

    def say(self) -> None:
        if not self.seen.outcome:
            self.seen.asked += 1
            self.transport.write(b"?")

    def data_received(self, data: bytes) -> None:
        self.seen.answers += 1
        self.seen.server = self.seen.server or data.decode()
        if self.seen.server != data.decode():
            self.end(f"answered by {data.decode()}")
        elif self.call:
            self.end("ok")
        elif not self.seen.idle:
            asyncio.get_running_loop().call_later(TICK_S, self.say)
        self.answered.set()

    def end(self, outcome: str) -> None:
        if not self.seen.outcome:
            self.count()
            self.seen.outcome, self.seen.ended = outcome, time.monotonic()
            self.transport.close()

    def count(self) -> None:
        with suppress(OSError):
            info = self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            self.seen.retransmits = struct.unpack_from("=I", info, TOTAL_RETRANS)[0]

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("reset" if isinstance(exc, ConnectionResetError) else str(exc or "closed by the server"))
        self.answered.set()
        self.gone.set()


class Clients:
    """The process of the clients. Takes orders, one JSON value per line: {"do": name, ...}."""

    def __init__(self, vips: Mapping[int, str]) -> None:
        self.vips = vips
        self.flows: list[Caller] = []
        self.calls: list[Seen] = []
        self.running: set[asyncio.Task[None]] = set()

    async def work(self, channel: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=channel, limit=1 << 24)
        while line := await reader.readline():
            order = json.loads(line)
            answer = await getattr(self, f"do_{order.pop('do')}")(**order)
            writer.write(json.dumps(answer).encode() + b"\n")

    async def do_open(self, version: int, count: int, idle: bool) -> None:
        """So many more flows; returns when all have had an answer."""
        new = [Caller(Seen(version, idle), call=False) for _ in range(count)]
        for first in range(0, count, 20):
            some = new[first : first + 20]
            await asyncio.gather(*(self.connect(caller) for caller in some))
            await asyncio.gather(*(caller.answered.wait() for caller in some))
        self.flows += new

    async def connect(self, caller: Caller) -> None:
        caller.seen.started = time.monotonic()
        await asyncio.get_running_loop().create_connection(lambda: caller, self.vips[caller.seen.version], PORT)

    async def do_calls(self, per_second: int) -> None:
        """Starts making calls, of each family in turn."""

        loop = asyncio.get_running_loop()
        begun = loop.time()

        def make(number: int) -> None:
            task = asyncio.create_task(self.make_call(4 if number % 2 else 6))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            loop.call_at(begun + number / per_second, make, number + 1)

        make(1)

    async def make_call(self, version: int) -> None:
        seen = Seen(version)
        self.calls.append(seen)
        caller = Caller(seen, call=True)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.connect(caller)
                await caller.gone.wait()
        except TimeoutError:
            outcome = "nothing"
            if hasattr(caller, "transport"):
                caller.transport.abort()
        except ConnectionRefusedError:
            outcome = "refused"
        except OSError as error:
            outcome = os.strerror(error.errno or 0)
        else:
            return
        seen.outcome, seen.ended = seen.outcome or outcome, time.monotonic()

    async def do_look(self) -> list[dict[str, Any]]:
        for caller in self.flows:
            if not caller.seen.outcome:
                caller.count()
        return [asdict(caller.seen) for caller in self.flows]

    async def do_take_calls(self) -> list[dict[str, Any]]:
        """Those that have ended since the last time."""
        ended = [seen for seen in self.calls if seen.outcome]
        self.calls = [seen for seen in self.calls if not seen.outcome]
        return [asdict(seen) for seen in ended]

    async def do_poke(self) -> None:
        """Every idle flow says a line."""
        for caller in self.flows:
            if caller.seen.idle:
                caller.say()

    async def do_drop_ended(self) -> None:
        self.flows = [caller for caller in self.flows if not caller.seen.outcome]


class Traffic:
    """The clients' process, from outside."""

    def __init__(self, node: Node, vips: Mapping[int, str], log: Path) -> None:
        ours, theirs = socket.socketpair()

        def run() -> None:
            ours.close()
            asyncio.run(Clients(vips).work(theirs))

        node.fork(run, log)
        theirs.close()
        self._channel = ours
        self._answers = ours.makefile("rb")

    def ask(self, order: str, **arguments: Any) -> Any:
        self._channel.sendall(json.dumps({"do": order, **arguments}).encode() + b"\n")
        return json.loads(self._answers.readline())

    def flows(self) -> list[Seen]:
        return [Seen(**item) for item in self.ask("look")]

    def calls(self) -> list[Seen]:
        return [Seen(**item) for item in self.ask("take_calls")]

    def close(self) -> None:
        self._answers.close()
        self._channel.close()
