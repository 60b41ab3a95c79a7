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
from lbnode.lab.clients.datagrams import ANSWER_S, datagrams
from lbnode.lab.clients.http import Broken, Connection, Steps, length, request

CHUNK = 1024
RECEIVE_BUFFER = 4096
FINISHING_BUFFER = 131072
BODY_BYTES = 65536
FILES = web.SIZES[:3]
FILE_S = 30.0
"""How long the download of one file may take at a crawl. All of it soon waits in the client's and the server's kernels,
and proxies call a connection idle and close it when nothing was asked for a minute (HAProxy's http-keep-alive)."""
SHORT_PATIENCE_S = 10.0


@dataclass(slots=True)
class Flow:
    """One client through an experiment. Times are of the monotonic clock, which all processes of a machine share.

    `begun`: the first answer or bytes have passed. `resting`: between two ticks. `due`: since when progress is, or 0.
    `unanswered`: the datagrams without an answer, by number, and when they were sent.
    The rest is explained with `lbnode.lab.account.FlowReport`.
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
    stopped_at: float = 0.0
    stall_s: float = 0.0
    stall_at: float = 0.0
    due: float = 0.0
    proven: float = 0.0
    other: str = ""
    failures: list[tuple[float, int, str]] = field(default_factory=list)
    unanswered: dict[int, float] = field(default_factory=dict)
    connection: Connection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.connection = Connection(self.source, self.vip, self.vip_port)

    def run(self) -> Steps[None]:
        """Never raises: what went wrong is in `broken`."""
        try:
            yield from KINDS[self.kind](self)
        except Broken as problem:
            self.give_up(str(problem))
        finally:
            self.connection.close()
            self.ended = self.begun = True

    def give_up(self, why: str) -> None:
        """It is broken."""
        self.broken, self.broken_at = why, time.monotonic()
        self.stopped_at = self.due or self.broken_at
        self._stood(self.stopped_at, self.broken_at)

    def pause(self) -> Steps[None]:
        """One tick, or none any more when the flow is to finish. The first one is cut at random: flows spread out."""
        if self.finishing:
            return
        share = 1.0 if self.begun else random.random()  # noqa: S311 - nothing secret here
        self.begun = self.resting = True
        yield self.tick_s * share
        self.resting = False

    def expect(self) -> float:
        """Progress is due from now on; returns now."""
        self.due = time.monotonic()
        return self.due

    def passed(self, count: int, proven: float) -> None:
        """Progress was made: `count` bytes, an answer to what was sent at `proven`."""
        self.moved += count
        self.proven = max(self.proven, proven)
        self._stood(self.due, time.monotonic())
        self.due = 0.0

    def _stood(self, since: float, until: float) -> None:
        if until - since > self.stall_s:
            self.stall_s, self.stall_at = until - since, since

    @property
    def lost(self) -> int:
        """Datagrams that no answer has come to, in time or late."""
        until = time.monotonic() - (0.0 if self.ended else ANSWER_S)
        return sum(sent <= until for sent in self.unanswered.values())

    def as_json(self) -> dict[str, Any]:
        ends = ("kind", "source", "port", "vip", "vip_port", "backend")
        names = (*ends, "other", "moved", "rounds", "lost", "broken", "ended")
        times = {name: round(getattr(self, name), 3) for name in ("broken_at", "stopped_at", "stall_s", "stall_at")}
        return {name: getattr(self, name) for name in names} | times | {"failures": self.failures}


def download(flow: Flow) -> Steps[None]:
    """File after file, a bufferful per tick; every byte is compared. When it is to finish, one more: the rest of a file
    may be here already, and say nothing of who has sent it."""
    connection = flow.connection
    connection.receive_buffer, connection.quiet = RECEIVE_BUFFER, False
    yield from _open(flow)
    last = False
    while not last:
        last = flow.finishing
        yield from _one_file(flow)
        flow.rounds += 1


def _open(flow: Flow) -> Steps[None]:
    flow.expect()
    yield from flow.connection.open()
    flow.port = flow.connection.port
    flow.passed(0, 0.0)


def file_bytes(tick_s: float) -> int:
    """The largest of the files that a flow reads in time, a bufferful per tick."""
    fitting = [size for size in FILES if size / RECEIVE_BUFFER * tick_s <= FILE_S]
    return max(fitting, default=FILES[0])


def _one_file(flow: Flow) -> Steps[None]:
    connection, size = flow.connection, file_bytes(flow.tick_s)
    asked = flow.expect()
    yield from connection.send(request("GET", f"/files/{size}", flow.vip))
    answer = yield from connection.head()
    if answer.status != 200 or length(answer) != size:
        raise Broken(f"status {answer.status}, {length(answer)} bytes")
    flow.backend = answer.headers.get("x-backend", "")
    flow.passed(0, asked)
    done, emptied, wide = 0, 0.0, False
    while done < size:
        yield from flow.pause()
        if flow.finishing and not wide:
            connection.widen(FINISHING_BUFFER)
            wide = True
        flow.expect()
        data = yield from connection.receive(65536, at_once=True)
        if data != web.content(done, done + len(data)):
            raise Broken(f"wrong bytes at {done}")
        done += len(data)
        # What came now was sent when the buffer had been emptied the last time and the other side was told so.
        flow.passed(len(data), emptied)
        emptied = time.monotonic()


def upload(flow: Flow) -> Steps[None]:
    """Body after body, a chunk per tick; the server's count is compared."""
    yield from _open(flow)
    while not (flow.finishing and flow.rounds):
        yield from _one_body(flow)
        flow.rounds += 1


def _one_body(flow: Flow) -> Steps[None]:
    connection = flow.connection
    flow.expect()
    yield from connection.send(request("PUT", "/upload", flow.vip, BODY_BYTES))
    done = 0
    while BODY_BYTES - done > CHUNK and not flow.finishing:
        sent = flow.expect()
        yield from connection.send(web.content(done, done + CHUNK))
        yield from connection.acknowledged()
        done += CHUNK
        flow.passed(CHUNK, sent)
        yield from flow.pause()
    sent = flow.expect()
    yield from connection.send(web.content(done, BODY_BYTES))
    answer = yield from connection.head()
    counted = (yield from connection.receive(length(answer), at_once=True)).decode().strip()
    flow.backend = answer.headers.get("x-backend", "")
    if answer.status != 200 or counted != str(BODY_BYTES):
        raise Broken(f"status {answer.status}, {counted} of {BODY_BYTES} bytes arrived")
    flow.passed(BODY_BYTES - done, sent)


def requests(flow: Flow) -> Steps[None]:
    """One small request per tick on a connection that is kept; a last one when it is to finish, for who has not been
    heard since may be gone."""
    yield from _open(flow)
    last = False
    while not last:
        last = flow.finishing
        asked = flow.expect()
        answer = yield from flow.connection.get("/", 200)
        flow.backend = answer.body.decode().strip()
        flow.rounds += 1
        flow.passed(len(answer.body), asked)
        yield from flow.pause()


def short(flow: Flow) -> Steps[None]:
    """One small request per tick, each on a connection of its own: what new clients meet. Failures end nothing."""
    patience_s = min(flow.connection.patience_s, SHORT_PATIENCE_S)
    while not flow.finishing:
        yield from flow.pause()
        connection = flow.connection = Connection(flow.source, flow.vip, flow.vip_port)
        connection.patience_s = patience_s
        asked = flow.expect()
        try:
            yield from connection.open()
            answer = yield from connection.get("/", 200)
        except Broken as problem:
            flow.failures.append((round(asked, 3), connection.port, str(problem)))
            flow.due = 0.0
        else:
            flow.rounds += 1
            flow.passed(len(answer.body), asked)
        finally:
            connection.close()


KINDS: dict[str, Callable[[Flow], Steps[None]]] = {
    "download": download,
    "upload": upload,
    "requests": requests,
    "short": short,
    "datagrams": datagrams,
}
