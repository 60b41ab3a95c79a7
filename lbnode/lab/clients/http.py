"""As much HTTP/1.1 as the lab's clients need, over one socket, so that every byte can be slowed down and checked.

A library would read ahead: here what the client has not asked for stays in the network, where a flow can break.
"""

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 40.0
"""How long a client waits for the next byte, or for room to send one, before it calls the connection stalled."""


class Broken(Exception):
    """A connection or an answer went wrong; the message is the reason, in few words."""


@dataclass(frozen=True)
class Answer:
    """`headers` by lower-case name. The body is read separately, except by `Connection.get`."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Connection:
    """One client's connection. `port` is its own, known once connected."""

    source: str
    vip: str
    vip_port: int = 80
    receive_buffer: int = 0
    port: int = 0
    _socket: socket.socket | None = None
    _left: bytearray = field(default_factory=bytearray)

    async def open(self) -> None:
        family = socket.AF_INET6 if ":" in self.vip else socket.AF_INET
        self._socket = channel = socket.socket(family, socket.SOCK_STREAM)
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.receive_buffer:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        channel.bind((self.source, 0))
        self.port = channel.getsockname()[1]
        await self._patiently(asyncio.get_running_loop().sock_connect(channel, (self.vip, self.vip_port)), "connect")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def send(self, data: bytes) -> None:
        await self._patiently(asyncio.get_running_loop().sock_sendall(self.channel, data), "send")

    async def receive(self, most: int) -> bytes:
        """At least one byte, at most `most`. Raises Broken when the other side has closed."""
        if self._left:
            data = bytes(self._left[:most])
            del self._left[:most]
            return data
        data = await self._patiently(asyncio.get_running_loop().sock_recv(self.channel, most), "receive")
        if not data:
            raise Broken("closed by the other side")
        return data

    async def head(self) -> Answer:
        """Status and headers of the next answer."""
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += await self.receive(4096)
        head, _, rest = bytes(received).partition(b"\r\n\r\n")
        self._left[:0] = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers)

    async def get(self, path: str) -> Answer:
        """One whole request and answer."""
        await self.send(request("GET", path, self.vip))
        answer = await self.head()
        body = bytearray()
        while len(body) < length(answer):
            body += await self.receive(min(65536, length(answer) - len(body)))
        return Answer(answer.status, answer.headers, bytes(body))

    @property
    def channel(self) -> socket.socket:
        if self._socket is None:
            raise Broken("not connected")
        return self._socket

    async def _patiently(self, step: Coroutine[Any, Any, T], what: str) -> T:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await step
        except TimeoutError:
            raise Broken(f"{what}: nothing for {PATIENCE_S:g} s") from None
        except OSError as error:
            raise Broken(f"{what}: {error.strerror or error}") from error


def request(method: str, path: str, host: str, body_length: int | None = None) -> bytes:
    """The head of a request."""
    name = f"[{host}]" if ":" in host else host
    extra = "" if body_length is None else f"Content-Length: {body_length}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: lab\r\n{extra}\r\n".encode()


def length(answer: Answer) -> int:
    """Raises Broken when the answer does not say how long it is: the lab's servers always do."""
    try:
        return int(answer.headers["content-length"])
    except (KeyError, ValueError):
        raise Broken(f"status {answer.status} without a length") from None
