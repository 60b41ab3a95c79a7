"""Echo servers in other nodes, and flows to them that know who has answered first."""

import hashlib
import selectors
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lbnode.lab.namespaces import Node

ECHO, AGENT, HEALTH, BEHIND = 80, 5555, 8080, 8001
"""Ports of the real servers. BEHIND: as ECHO, for what may stand before it."""
BYE = b"bye"
DEADLINE_S = 20.0


@dataclass
class Servers:
    """What the real servers serve: their name for every line, the end of the connection for BYE; their agent-check, out
    of `words`; their health path, with a status out of `statuses`. In a thread, while the context lasts. `heard`:
    digests of what clients have said, by their address and port."""

    words: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    heard: dict[tuple[str, int], Any] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _stop: threading.Event = field(default_factory=threading.Event)

    def listen(self, node: Node, name: str) -> None:
        for port in (ECHO, AGENT, HEALTH, BEHIND):
            for family, address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
                opened = node.call(partial(socket.create_server, (address, port), family=family, backlog=256))
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 256)  # where the system allows it
                self._selector.register(opened, selectors.EVENT_READ, (port, name, None))

    def give_up(self, port: int) -> None:
        """Stops listening there."""
        for key in list(self._selector.get_map().values()):
            if key.data[0] == port and key.data[2] is None:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                port, name, source = key.data
                end: Any = key.fileobj
                if source is None:
                    with suppress(OSError):
                        self._begin(*end.accept(), port, name)
                elif not self._answered(end, port, name, source):
                    self._selector.unregister(end)
                    end.close()

    def _begin(self, client: socket.socket, address: Any, port: int, name: str) -> None:
        if port == AGENT:
            with client:
                client.sendall(self.words.get(name, "ready").encode() + b"\n")
        else:
            self.heard[address[:2]] = hashlib.sha256()
            self._selector.register(client, selectors.EVENT_READ, (port, name, address[:2]))

    def _answered(self, client: socket.socket, port: int, name: str, source: tuple[str, int]) -> bool:
        """Whether the connection goes on."""
        with suppress(OSError):
            said = client.recv(1 << 16)
            if said in (b"", BYE):
                return False
            if port == HEALTH:
                status = self.statuses.get(name, 200)
                client.sendall(f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                return False
            self.heard[source].update(said)
            client.sendall(name.encode())
            return True
        return False


@dataclass
class Flow:
    """One connection of the client, and the server that holds it."""

    end: socket.socket
    server: str = ""

    @property
    def source(self) -> tuple[str, int]:
        """The client's address and port."""
        address, port, *_ = self.end.getsockname()
        return address, port

    def says(self, patience_s: float = DEADLINE_S) -> str:
        """What a line brings back: the server's name, `reset`, or `nothing` for so long."""
        self.end.settimeout(patience_s)
        try:
            self.end.sendall(b"?")
            return self.end.recv(10).decode()
        except TimeoutError:
            return "nothing"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"


def answers(flows: Iterable[Flow]) -> dict[str, int]:
    """How many flows got the answer of their own server, how many each of the rest."""
    counts: dict[str, int] = {}
    for flow in flows:
        found = flow.says()
        word = "own" if found == flow.server else found
        counts[word] = counts.get(word, 0) + 1
    return counts


def of(flows: Iterable[Flow], server: str) -> list[Flow]:
    return [flow for flow in flows if flow.server == server]


def but(flows: Iterable[Flow], server: str) -> list[Flow]:
    return [flow for flow in flows if flow.server != server]
