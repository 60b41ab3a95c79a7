"""How a scenario directs the clients: one forked process in the users' namespace, orders over a socket.

crowd = Crowd(node, log)
crowd.spread(["198.51.100.1"], sources, 4)          # who answered
crowd.start("calm", flows)                          # returns once every flow has begun
crowd.meet("calm")                                  # returns once every flow has met what is there now
crowd.finish("calm")                                # what became of each
"""

import itertools
import json
import random
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lbnode.lab.account import FlowReport
from lbnode.lab.clients import worker
from lbnode.lab.clients.http import PATIENCE_S
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

ORDER_TIMEOUT_S = 120.0
MET_S = 60.0

Planned = tuple[str, str, str, int]
"""A flow to start: its kind, the client's address, VIP and port."""


@dataclass(frozen=True)
class Reply:
    """What one request brought. `port` is the client's, `body` the beginning of what came, `length` all of its size;
    `problem` says why there was no answer."""

    source: str
    vip: str
    port: int = 0
    status: int = 0
    body: str = ""
    length: int = 0
    backend: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Count:
    """How a group of flows is doing; `moved` counts bytes, `failures` short requests, `lost` datagrams. `stalled`:
    flows that have ever stood still for over 1 s; `stalling`: those that do now."""

    flows: int
    broken: int
    moved: int
    rounds: int
    failures: int
    lost: int
    stalled: int
    stalling: int
    stall_s: float


class Crowd:
    """The clients of a lab. A context manager; not safe for several threads."""

    def __init__(self, node: Node, log_path: Path) -> None:
        mine, theirs = socket.socketpair()

        def work() -> None:
            mine.close()
            worker.run(theirs)

        self.pid = node.fork(work, log_path)
        theirs.close()
        mine.settimeout(ORDER_TIMEOUT_S)
        self._log_path = log_path
        self._socket = mine
        self._lines = mine.makefile("rb")

    def ask(self, asks: Sequence[tuple[str, str]], path: str = "/") -> list[Reply]:
        """One request per (source, VIP), each on a connection of its own; answers in the same order."""
        answers = self._order(do="ask", asks=[[source, vip, path] for source, vip in asks])
        return [_reply(source, vip, answer) for (source, vip), answer in zip(asks, answers, strict=True)]

    def get(self, vip: str, source: str, path: str = "/") -> Reply:
        return self.ask([(source, vip)], path)[0]

    def spread(self, vips: Sequence[str], sources: Sequence[str], each: int = 1) -> Counter[str]:
        """How often each backend answered `each` requests to every VIP from every source of its family."""
        replies = self.ask([pair for pair in pairs(vips, sources) for _ in range(each)])
        return Counter(reply.backend or reply.problem for reply in replies)

    def start(
        self, group: str, flows: Sequence[Planned], tick_s: float = 1.0, patience_s: float = PATIENCE_S
    ) -> list[FlowReport]:
        """Starts flows; returns once all have begun.

        Kinds: download, upload, requests (on one connection), short (each on its own); by UDP, datagrams. A flow that
        stands still for longer than `patience_s` is broken.
        """
        rows = [list(flow) for flow in flows]
        return _reports(self._order(do="start", group=group, flows=rows, tick_s=tick_s, patience_s=patience_s))

    def look(self, group: str) -> list[FlowReport]:
        """The flows of a group as they are now."""
        return _reports(self._order(do="look", group=group))

    def count(self, group: str) -> Count:
        return Count(**self._order(do="count", group=group))

    def meet(self, group: str, but: Sequence[int] = (), deadline_s: float = MET_S) -> int:
        """Hurries the flows of a group until each is broken, or has had an answer to something that it sent after now:
        whatever is different since a moment ago, all have met it. Returns how many have not.

        `but` are places in the group: flows that are not waited for.
        """
        return int(self._order(do="meet", group=group, but=list(but), deadline_s=deadline_s))

    def finish(self, group: str, deadline_s: float = 60.0) -> list[FlowReport]:
        """Lets the flows of a group complete what they are at, at full speed, and reports on every one."""
        return _reports(self._order(do="finish", group=group, deadline_s=deadline_s))

    def _order(self, **order: Any) -> Any:
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        try:
            line = self._lines.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise LabError(f"cannot hear the clients: no answer to {order['do']!r}; see {self._log_path}")
        return json.loads(line)

    def close(self) -> None:
        """The process ends by itself when its socket is closed."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pairs(vips: Sequence[str], sources: Sequence[str]) -> list[tuple[str, str]]:
    """Every (source, VIP) of one family."""
    return [(source, vip) for vip in vips for source in sources if (":" in source) == (":" in vip)]


def mix(count: int, kinds: Sequence[str], vips: Sequence[str], sources: Sequence[str], port: int = 80) -> list[Planned]:
    """`count` flows, spread evenly over kinds and VIPs and at random, the same every time, over sources."""
    chance = random.Random(count)  # noqa: S311 - nothing secret here
    chosen = itertools.islice(itertools.cycle(itertools.product(vips, kinds)), count)
    near = {vip: [source for source, _ in pairs([vip], sources)] for vip in vips}
    return [(kind, chance.choice(near[vip]), vip, port) for vip, kind in chosen]


def _reports(rows: Sequence[Any]) -> list[FlowReport]:
    return [FlowReport(**{**row, "failures": tuple(map(tuple, row["failures"]))}) for row in rows]


def _reply(source: str, vip: str, answer: Any) -> Reply:
    if isinstance(answer, str):
        return Reply(source, vip, problem=answer)
    port, status, headers, body, length = answer
    return Reply(source, vip, port, status, body, length, headers.get("x-backend", ""))
