"""As much HTTP/1.1 as the lab's clients need, over one socket, so that every byte can be slowed down and checked.

A library would read ahead: here what the client has not asked for stays in the network, where a flow can break.
Whatever may have to wait is a generator: it yields what it waits for, `Want.READ`, `Want.WRITE` or a number of seconds,
and `lbnode.lab.clients.engine` resumes it: the lab's clients are thousands on one slow processor.
"""

import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

PATIENCE_S = 40.0
"""How long a client waits for the next byte, or for room to send one, before it calls the connection stalled."""
ACK_POLL_S = 0.02
"""How soon an acknowledgement is looked for after sending; later looks come after a tenth of the time waited so far."""

HEAD_END = b"\r\n\r\n"


class Broken(Exception):
    """A connection or an answer went wrong; the message is the reason, in few words."""


class Late(Broken):
    """What a client waited for has not come in time."""


class Want(Enum):
    """What a client waits for at its socket."""

    READ = 1
    WRITE = 2


T = TypeVar("T")
Steps = Generator[Want | float, None, T]
"""Something that may have to wait. A float is a pause, in seconds."""


@dataclass(frozen=True)
class Answer:
    """`headers` by lower-case name. The body is read separately, except by `Connection.get`."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Connection:
    """One client's connection. `port` is its own, known once it is bound; `interest` is the engine's.

    `quiet`: nothing is expected while the client pauses, so what comes then is news. With a small `receive_buffer`
    that is left full there is always something.
    """

    source: str
    vip: str
    vip_port: int = 80
    receive_buffer: int = 0
    port: int = 0
    opened: bool = False
    quiet: bool = True
    patience_s: float = 0.0
    interest: int = -1
    _socket: socket.socket | None = None
    _left: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.patience_s = self.patience_s or PATIENCE_S

    def open(self, kind: int = socket.SOCK_STREAM) -> Steps[None]:
        family = socket.AF_INET6 if ":" in self.vip else socket.AF_INET
        self._socket = channel = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            if kind == socket.SOCK_STREAM:
                channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.receive_buffer:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            channel.bind((self.source, 0))
            self.port = channel.getsockname()[1]
            number = channel.connect_ex((self.vip, self.vip_port))
        except OSError as error:
            raise Broken(f"open: {error.strerror}") from error
        if number == errno.EINPROGRESS:
            yield Want.WRITE
            number = channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise Broken(f"connect: {os.strerror(number)}")
        self.opened = True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> Steps[None]:
        """Until the kernel has taken all of it."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.channel.send(view) :]
            except BlockingIOError:
                yield Want.WRITE
            except OSError as error:
                raise Broken(f"send: {error.strerror}") from error

    def acknowledged(self) -> Steps[None]:
        """Until the other side has all that was sent (SIOCOUTQ, tcp(7)): nothing else tells in an upload."""
        since = time.monotonic()
        while struct.unpack("=i", fcntl.ioctl(self.channel, termios.TIOCOUTQ, bytes(4)))[0]:
            waited = time.monotonic() - since
            if waited > self.patience_s:
                raise Broken(f"send: nothing acknowledged for {self.patience_s:g} s")
            yield max(ACK_POLL_S, waited / 10)

    def receive(self, most: int, at_once: bool = False) -> Steps[bytes]:
        """At least one byte, at most `most`. `at_once`: it may be there already. Raises Broken when the other side
        has closed."""
        if self._left:
            data = bytes(self._left[:most])
            del self._left[:most]
            return data
        if not at_once:
            yield Want.READ
        while True:
            try:
                data = self.channel.recv(most)
            except BlockingIOError:
                yield Want.READ
            except OSError as error:
                raise Broken(f"receive: {error.strerror}") from error
            else:
                if not data:
                    raise Broken("closed by the other side")
                return data

    def head(self) -> Steps[Answer]:
        """Status and headers of the next answer."""
        received = bytearray()
        while HEAD_END not in received:
            received += yield from self.receive(4096)
        head, _, rest = bytes(received).partition(HEAD_END)
        self._left[:0] = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers)

    def get(self, path: str, status: int = 0) -> Steps[Answer]:
        """One whole request and answer. Raises Broken when a status is given and it is another."""
        yield from self.send(request("GET", path, self.vip))
        answer = yield from self.head()
        body = bytearray()
        while len(body) < length(answer):
            body += yield from self.receive(min(65536, length(answer) - len(body)), at_once=True)
        if status not in (0, answer.status):
            raise Broken(f"status {answer.status}")
        return Answer(answer.status, answer.headers, bytes(body))

    def widen(self, receive_buffer: int) -> None:
        """From now on, as fast as it goes."""
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 65535)

    def news(self) -> str:
        """Why there is something to read, or an error, when nothing was expected."""
        if number := self.channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return f"receive: {os.strerror(number)}"
        try:
            data = self.channel.recv(4096)
        except BlockingIOError:
            return ""
        except OSError as error:
            return f"receive: {error.strerror}"
        first = data.partition(b"\r\n")[0].decode("latin-1")
        return f"answered early: {first}" if data else "closed by the other side"

    @property
    def is_closed(self) -> bool:
        return self._socket is None

    @property
    def channel(self) -> socket.socket:
        if self._socket is None:
            raise Broken("not connected")
        return self._socket


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
