"""The process in the users' namespace: takes orders, one JSON value per line, over a socket, and answers each.

{"do": "ask", "asks": [[source, vip, path], ...]}            -> [[port, status, headers, body, length] or a reason, ...]
{"do": "start", "group": g, "flows": [[kind, source, vip], ...], "tick_s": 1}  -> the flows, once all have begun
{"do": "look", "group": g}                                   -> the flows as they are now
{"do": "finish", "group": g, "deadline_s": 30}               -> the flows, once all have ended; the group is gone
"""

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any

from lbnode.lab.clients.flows import Flow
from lbnode.lab.clients.http import Broken, Connection

ASKING_AT_ONCE = 16
BEGINNING_AT_ONCE = 16
LINE_LIMIT = 16 * 1024 * 1024
BODY_SHOWN = 4096


class Worker:
    """Every group of flows, by name, with the tasks that run them."""

    def __init__(self) -> None:
        self.groups: dict[str, list[Flow]] = {}
        self.tasks: dict[str, list[asyncio.Task[None]]] = {}

    async def serve(self, channel: socket.socket) -> None:
        """Until the other end is closed."""
        reader, writer = await asyncio.open_connection(sock=channel, limit=LINE_LIMIT)
        while line := await reader.readline():
            order = json.loads(line)
            answer = await getattr(self, f"do_{order.pop('do')}")(**order)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    async def do_ask(self, asks: Sequence[Sequence[str]]) -> list[Any]:
        gate = asyncio.Semaphore(ASKING_AT_ONCE)

        async def one(source: str, vip: str, path: str) -> Any:
            async with gate:
                return await ask(source, vip, path)

        return list(await asyncio.gather(*(one(*item) for item in asks)))

    async def do_start(self, group: str, flows: Sequence[Sequence[str]], tick_s: float) -> list[dict[str, Any]]:
        return await self.start(group, [Flow(kind, source, vip, tick_s) for kind, source, vip in flows])

    async def start(self, group: str, made: list[Flow]) -> list[dict[str, Any]]:
        """Starts flows, some at a time, so that beginning is no storm; returns once all have begun."""
        tasks: list[asyncio.Task[None]] = []
        for first in range(0, len(made), BEGINNING_AT_ONCE):
            some = made[first : first + BEGINNING_AT_ONCE]
            tasks += [asyncio.create_task(flow.run()) for flow in some]
            await asyncio.gather(*(flow.begun.wait() for flow in some))
        self.groups[group], self.tasks[group] = made, tasks
        return await self.do_look(group)

    async def do_look(self, group: str) -> list[dict[str, Any]]:
        return [flow.as_json() for flow in self.groups[group]]

    async def do_finish(self, group: str, deadline_s: float) -> list[dict[str, Any]]:
        flows, tasks = self.groups.pop(group), self.tasks.pop(group)
        for flow in flows:
            flow.finishing.set()
        _, late = await asyncio.wait(tasks, timeout=deadline_s)
        for task in late:
            task.cancel()
        for flow, task in zip(flows, tasks, strict=True):
            if task in late:
                flow.broken = f"not finished after {deadline_s:g} s"
        return [flow.as_json() for flow in flows]


async def ask(source: str, vip: str, path: str) -> Any:
    """One request on a connection of its own: the client's port and what was answered, or why it was not."""
    connection = Connection(source, vip)
    try:
        await connection.open()
        answer = await connection.get(path)
    except Broken as problem:
        return str(problem)
    finally:
        connection.close()
    body = answer.body[:BODY_SHOWN].decode("latin-1")
    return [connection.port, answer.status, answer.headers, body, len(answer.body)]


def run(channel: socket.socket) -> None:
    """The process: serves until the lab closes its end."""
    asyncio.run(Worker().serve(channel))
