"""Connections that last as long as an experiment, and say at its end whether they survived it.

Each crawls: a little data once per `tick_s`, so that a flow that the network sends elsewhere meets a machine that does
not know it and is broken within a tick. Told to finish, it completes what it is at, at full speed, and checks it.

A flow is *proven* for a moment when a packet that it sent after that moment was answered: an experiment that has
changed something waits until every flow is proven for the moment of the change.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lbnode.lab import web
from lbnode.lab.clients.http import Broken, Connection, Steps, length, request

CHUNK = 1024
RECEIVE_BUFFER = 4096
FINISHING_BUFFER = 131072
FILE_BYTES = web.SIZES[0]
SHORT_PATIENCE_S = 10.0


@dataclass(slots=True)
class Flow:
    """One client through an experiment. Times are of the monotonic clock, which all processes of a machine share.

    `begun`: the first answer or bytes have passed. `resting`: between two ticks. `stall_s`: the longest time without
    progress when progress was due, which began at `stall_at`. `failures`, of short requests: (time, port, reason).
    """

    kind: str
    source: str
    vip: str
    tick_s: float = 1.0
    vip_port: int = 80
    begun: bool = False
    finishing: bool = False
    resting: bool = False
    ended: bool = False
    port: int = 0
    backend: str = ""
    moved: int = 0
    rounds: int = 0
    broken: str = ""
    broken_at: float = 0.0
    stall_s: float = 0.0
    stall_at: float = 0.0
    proven: float = 0.0
    failures: list[tuple[float, int, str]] = field(default_factory=list)
    connection: Connection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.connection = Connection(self.source, self.vip, self.vip_port)

    def run(self) -> Steps[None]:
        """Never raises: what went wrong is in `broken`."""
        try:
            yield from KINDS[self.kind](self)
        except Broken as problem:
            self.broken, self.broken_at = str(problem), time.monotonic()
        finally:
            self.connection.close()
            self.ended = self.begun = True

    def pause(self) -> Steps[None]:
        """One tick, or none any more when the flow is to finish. The first one is cut at random: flows spread out."""
        if self.finishing:
            return
        share = 1.0 if self.begun else random.random()  # noqa: S311 - nothing secret here
        self.begun = self.resting = True
        yield self.tick_s * share
        self.resting = False

    def passed(self, count: int, since: float, proven: float) -> None:
        """Notes that `count` bytes have passed, after waiting since a time; `proven`: what they are an answer to."""
        waited = time.monotonic() - since
        self.moved += count
        self.proven = proven
        if waited > self.stall_s:
            self.stall_s, self.stall_at = waited, since

    def as_json(self) -> dict[str, Any]:
        names = ("kind", "source", "port", "vip", "vip_port", "backend", "moved", "rounds", "broken", "ended")
        times = {name: round(getattr(self, name), 3) for name in ("broken_at", "stall_s", "stall_at")}
        return {name: getattr(self, name) for name in names} | times | {"failures": self.failures}


def download(flow: Flow) -> Steps[None]:
    """File after file, a bufferful per tick; every byte is compared."""
    connection = flow.connection
    connection.receive_buffer, connection.quiet = RECEIVE_BUFFER, False
    yield from connection.open()
    flow.port = connection.port
    while not (flow.finishing and flow.rounds):
        yield from _one_file(flow)
        flow.rounds += 1


def _one_file(flow: Flow) -> Steps[None]:
    connection = flow.connection
    asked = time.monotonic()
    yield from connection.send(request("GET", f"/files/{FILE_BYTES}", flow.vip))
    answer = yield from connection.head()
    if answer.status != 200 or length(answer) != FILE_BYTES:
        raise Broken(f"status {answer.status}, {length(answer)} bytes")
    flow.backend = answer.headers.get("x-backend", "")
    flow.passed(0, asked, asked)
    done, emptied, wide = 0, 0.0, False
    while done < FILE_BYTES:
        yield from flow.pause()
        if flow.finishing and not wide:
            connection.widen(FINISHING_BUFFER)
            wide = True
        since = time.monotonic()
        data = yield from connection.receive(65536, at_once=True)
        if data != web.content(done, done + len(data)):
            raise Broken(f"wrong bytes at {done}")
        done += len(data)
        # What came now was sent when the buffer had been emptied the last time and the other side was told so.
        flow.passed(len(data), since, emptied)
        emptied = time.monotonic()


def upload(flow: Flow) -> Steps[None]:
    """Body after body, a chunk per tick; the server's count is compared."""
    connection = flow.connection
    yield from connection.open()
    flow.port = connection.port
    while not (flow.finishing and flow.rounds):
        yield from connection.send(request("PUT", "/upload", flow.vip, FILE_BYTES))
        done = 0
        while done < FILE_BYTES:
            since = time.monotonic()
            step = FILE_BYTES - done if flow.finishing else CHUNK
            yield from connection.send(web.content(done, min(done + step, FILE_BYTES)))
            yield from connection.acknowledged()
            done += step
            flow.passed(step, since, since)
            yield from flow.pause()
        answer = yield from connection.head()
        counted = (yield from connection.receive(length(answer), at_once=True)).decode().strip()
        flow.backend = answer.headers.get("x-backend", "")
        if answer.status != 200 or counted != str(FILE_BYTES):
            raise Broken(f"status {answer.status}, {counted} of {FILE_BYTES} bytes arrived")
        flow.rounds += 1


def requests(flow: Flow) -> Steps[None]:
    """One small request per tick on a connection that is kept."""
    connection = flow.connection
    yield from connection.open()
    flow.port = connection.port
    while not (flow.finishing and flow.rounds):
        since = time.monotonic()
        answer = yield from connection.get("/", 200)
        flow.backend = answer.body.decode().strip()
        flow.rounds += 1
        flow.passed(len(answer.body), since, since)
        yield from flow.pause()


def short(flow: Flow) -> Steps[None]:
    """One small request per tick, each on a connection of its own: what new clients meet. Failures end nothing."""
    while not flow.finishing:
        yield from flow.pause()
        since = time.monotonic()
        connection = flow.connection = Connection(flow.source, flow.vip, flow.vip_port)
        connection.patience_s = SHORT_PATIENCE_S
        try:
            yield from connection.open()
            answer = yield from connection.get("/", 200)
        except Broken as problem:
            flow.failures.append((round(since, 3), connection.port, str(problem)))
        else:
            flow.rounds += 1
            flow.passed(len(answer.body), since, since)
        finally:
            connection.close()


KINDS: dict[str, Callable[[Flow], Steps[None]]] = {
    "download": download,
    "upload": upload,
    "requests": requests,
    "short": short,
}
