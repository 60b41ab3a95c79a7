"""The process in the users' namespace: takes orders, one JSON value per line, over a socket, and answers each.

{"do": "ask", "asks": [[source, vip, path], ...]}            -> [[port, status, headers, body, length] or a reason, ...]
{"do": "start", "group": g, "flows": [[kind, source, vip, port], ...], "tick_s": 1, "patience_s": 40}
                                                             -> the flows, once all have begun
{"do": "look", "group": g}                                   -> the flows as they are now
{"do": "count", "group": g}                                  -> how many are how
{"do": "meet", "group": g, "deadline_s": 30, "but": [i]}     -> how many have not met what is there now
{"do": "finish", "group": g, "deadline_s": 30}               -> the flows, once all have ended; the group is gone

Between orders and during them the clients go on.
"""

import gc
import json
import resource
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lbnode.lab.clients.engine import Engine
from lbnode.lab.clients.flows import Flow
from lbnode.lab.clients.http import Broken, Connection, Steps

BODY_SHOWN = 4096
OPEN_FILES = 65536
STALLED_S = 1.0
IDLE_S = 0.5
LOOK_S = 0.05


@dataclass(slots=True)
class Ask:
    """One request on a connection of its own: the client's port and what was answered, or why it was not."""

    connection: Connection
    path: str
    resting: bool = False
    ended: bool = False
    answer: Any = None

    def run(self) -> Steps[None]:
        connection = self.connection
        try:
            yield from connection.open()
            answer = yield from connection.get(self.path)
            body = answer.body[:BODY_SHOWN].decode("latin-1")
            self.answer = [connection.port, answer.status, answer.headers, body, len(answer.body)]
        except Broken as problem:
            self.answer = str(problem)
        finally:
            connection.close()
            self.ended = True


@dataclass
class Worker:
    """Every group of flows, by name, and what moves them."""

    engine: Engine = field(default_factory=Engine)
    groups: dict[str, list[Flow]] = field(default_factory=dict)

    def serve(self, channel: socket.socket) -> None:
        """Until the other end is closed."""
        self.engine.watch(channel.fileno())
        received = b""
        while True:
            while b"\n" not in received:
                self.engine.turn(IDLE_S)
                if channel.fileno() not in self.engine.ready:
                    continue
                data = channel.recv(1 << 20)
                if not data:
                    return
                received += data
            line, _, received = received.partition(b"\n")
            order = json.loads(line)
            answer = getattr(self, f"do_{order.pop('do')}")(**order)
            channel.sendall(json.dumps(answer).encode() + b"\n")

    def do_ask(self, asks: Sequence[Sequence[str]]) -> list[Any]:
        """Every one waits for as long as clients wait."""
        made = [Ask(Connection(source, vip), path) for source, vip, path in asks]
        self.engine.rouse(made)
        self.engine.until(lambda: all(ask.ended for ask in made), float("inf"))
        return [ask.answer for ask in made]

    def do_start(
        self, group: str, flows: Sequence[tuple[str, str, str, int]], tick_s: float, patience_s: float
    ) -> list[dict[str, Any]]:
        made = [Flow(kind, source, vip, tick_s, port) for kind, source, vip, port in flows]
        for flow in made:
            flow.connection.patience_s = patience_s
        return self.start(group, made)

    def start(self, group: str, made: list[Flow]) -> list[dict[str, Any]]:
        """Starts flows; returns once all have begun. Stalls are counted from then on: the rush is our own doing."""
        self.groups[group] = made
        self.engine.rouse(made)
        self.engine.until(lambda: all(flow.begun for flow in made), float("inf"))
        for flow in made:
            flow.stall_s = flow.stall_at = 0.0
        return self.do_look(group)

    def do_look(self, group: str) -> list[dict[str, Any]]:
        return [flow.as_json() for flow in self.groups[group]]

    def do_count(self, group: str) -> dict[str, float]:
        flows, now = self.groups[group], time.monotonic()
        return {
            "flows": len(flows),
            "broken": sum(bool(flow.broken) for flow in flows),
            "moved": sum(flow.moved for flow in flows),
            "rounds": sum(flow.rounds for flow in flows),
            "failures": sum(len(flow.failures) for flow in flows),
            "lost": sum(flow.lost for flow in flows),
            "stalled": sum(flow.stall_s > STALLED_S for flow in flows),
            "stalling": sum(bool(flow.due) and not flow.ended and now - flow.due > STALLED_S for flow in flows),
            "stall_s": max((flow.stall_s for flow in flows), default=0.0),
        }

    def do_meet(self, group: str, deadline_s: float, but: Sequence[int] = ()) -> int:
        """Hurries every flow until it is broken or proven for this moment; those at the places `but` are not waited
        for."""
        began = time.monotonic()
        exempt = set(but)
        left = [flow for place, flow in enumerate(self.groups[group]) if place not in exempt and flow.kind != "short"]

        def met() -> bool:
            nonlocal left
            left = [flow for flow in left if not flow.ended and flow.proven < began]
            self.engine.rouse(flow for flow in left if flow.resting)
            return not left

        end = began + deadline_s
        while not met() and time.monotonic() < end:
            self.engine.until(lambda: False, LOOK_S)
        return len(left)

    def do_finish(self, group: str, deadline_s: float) -> list[dict[str, Any]]:
        flows = self.groups.pop(group)
        for flow in flows:
            flow.finishing = True
        self.engine.rouse(flows)
        self.engine.until(lambda: all(flow.ended for flow in flows), deadline_s)
        late = [flow for flow in flows if not flow.ended]
        self.engine.drop(late)
        for flow in late:
            flow.give_up(f"not finished after {deadline_s:g} s")
        return [flow.as_json() for flow in flows]


def run(channel: socket.socket) -> None:
    """The process: serves until the lab closes its end."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(hard, OPEN_FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()
    Worker().serve(channel)
