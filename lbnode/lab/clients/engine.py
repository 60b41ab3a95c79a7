"""What moves the lab's clients: epoll and a heap of times, no more work per flow than it has packets.

Clients are generators that yield what they wait for (`lbnode.lab.clients.http`). They are resumed when it is there,
with an exception when it does not come. What many of them shall do at once, to begin, to hurry, to finish, goes through
a gate: only so many are at it at a time, else a slow processor would make every one of them look stalled.
"""

import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from lbnode.lab.clients.http import Broken, Connection, Late, Steps, Want

AT_ONCE = 32
HELD_UP_S = 0.5
"""Who is at it for longer waits for the network, and makes room in the gate for others."""
MOST_EVENTS = 256
INTEREST = {Want.READ: select.EPOLLIN, Want.WRITE: select.EPOLLOUT}


class Client(Protocol):
    """What the engine moves. `resting`: it pauses of its own accord, and may be roused."""

    resting: bool
    ended: bool
    connection: Connection

    def run(self) -> Steps[None]: ...


class _Run:
    """A client on its way. `token` tells its newest time in the heap from those it no longer waits for."""

    __slots__ = ("client", "pausing", "queued", "steps", "token")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.steps = client.run()
        self.pausing = False
        self.queued = False
        self.token = 0


class Engine:
    """Runs clients, in turns. Nothing happens between two calls of `turn`, so those must follow one another."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._by_descriptor: dict[int, _Run] = {}
        self._times: list[tuple[float, int, int, _Run]] = []
        self._count = itertools.count()
        self._runs: dict[int, _Run] = {}
        self._gate: deque[_Run] = deque()
        self._busy: dict[_Run, float] = {}
        self._watched: set[int] = set()
        self.ready: set[int] = set()

    def watch(self, descriptor: int) -> None:
        """A descriptor that is not a client's: it is in `ready` while there is something to read."""
        self._watched.add(descriptor)
        self._poll.register(descriptor, select.EPOLLIN)

    def rouse(self, clients: Iterable[Client]) -> None:
        """New ones begin, resting ones go on before their time, as the gate allows."""
        for client in clients:
            run = self._runs.get(id(client))
            if run is None:
                run = self._runs[id(client)] = _Run(client)
            if not run.queued:
                run.queued = True
                self._gate.append(run)

    def drop(self, clients: Iterable[Client]) -> None:
        """Ends clients where they are."""
        for client in clients:
            run = self._runs.pop(id(client), None)
            if run is not None:
                run.steps.close()
                run.token += 1
                client.connection.close()
                client.ended = True

    def until(self, condition: Callable[[], object], deadline_s: float) -> bool:
        """Turns until a condition holds; whether it does."""
        end = time.monotonic() + deadline_s
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.turn(min(left, 0.05))
        return True

    def turn(self, longest_s: float) -> None:
        """Waits for the next thing to happen, at most so long, and lets everybody go on who can."""
        self._admit()
        now = time.monotonic()
        wait = longest_s
        if self._gate:
            wait = min(wait, HELD_UP_S)
        if self._times:
            wait = min(wait, max(0.0, self._times[0][0] - now))
        self.ready.clear()
        for descriptor, _ in self._poll.poll(wait, MOST_EVENTS):
            if descriptor in self._watched:
                self.ready.add(descriptor)
            elif run := self._by_descriptor.get(descriptor):
                self._happened(run)
        now = time.monotonic()
        while self._times and self._times[0][0] <= now:
            _, _, token, run = heapq.heappop(self._times)
            if token == run.token:
                self._step(run, None if run.pausing else Late(_late(run.client.connection)))

    def _admit(self) -> None:
        """Lets in from the gate as many as have left it: by resting, by ending, or by waiting for long."""
        if not self._gate:
            self._busy.clear()
            return
        old = time.monotonic() - HELD_UP_S
        gone = [run for run, since in self._busy.items() if since < old or run.client.resting or run.client.ended]
        for run in gone:
            del self._busy[run]
        while self._gate and len(self._busy) < AT_ONCE:
            run = self._gate.popleft()
            run.queued = False
            if run.client.ended or not (run.client.resting or run.token == 0):
                continue
            self._busy[run] = time.monotonic()
            self._step(run)

    def _happened(self, run: _Run) -> None:
        """Something at a client's socket: what it waits for or, in a pause, what it does not expect."""
        if not run.pausing:
            self._step(run)
        elif news := run.client.connection.news():
            self._step(run, Broken(news))

    def _step(self, run: _Run, error: Broken | None = None) -> None:
        run.token += 1
        try:
            want = run.steps.throw(error) if error else next(run.steps)
        except StopIteration:
            self._runs.pop(id(run.client), None)
            return
        connection = run.client.connection
        now = time.monotonic()
        if isinstance(want, Want):
            run.pausing = False
            self._listen(run, connection, INTEREST[want])
            when = now + connection.patience_s
        else:
            run.pausing = True
            self._listen(run, connection, select.EPOLLIN if connection.quiet else 0)
            when = now + want
        heapq.heappush(self._times, (when, next(self._count), run.token, run))

    def _listen(self, run: _Run, connection: Connection, interest: int) -> None:
        """Errors and a reset are always told (epoll_ctl(2))."""
        if connection.interest == interest or connection.is_closed:
            return
        descriptor = connection.channel.fileno()
        if connection.interest < 0:
            self._poll.register(descriptor, interest)
            self._by_descriptor[descriptor] = run
        else:
            self._poll.modify(descriptor, interest)
        connection.interest = interest


def _late(connection: Connection) -> str:
    waiting = "send" if connection.interest == select.EPOLLOUT else "receive"
    what = waiting if connection.opened else "connect"
    return f"{what}: nothing for {connection.patience_s:g} s"
