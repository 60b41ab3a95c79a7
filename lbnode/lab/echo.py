"""The UDP server of a lab's backends: answers every datagram with its own name and the datagram's words.

A service by UDP that keeps something of its clients breaks for a flow that comes to another server, or to the same one
started anew: an answer names the server and this life of it. On the TCP port of the same number it speaks as much HTTP
as health checks need. It is well once a datagram of its own has come back, for what is checked has to be UDP.
"""

import secrets
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

MOST = 2048
ROOM = 1 << 20
"""Bytes of datagrams that may wait while the processor is busy elsewhere."""
HEAD_END = b"\r\n\r\n"
WELL = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
PACKET_INFO = struct.Struct("=16sI")
"""struct in6_pktinfo: which of our addresses a datagram is for or from, and by which interface (ipv6(7))."""
ANCILLARY = socket.CMSG_SPACE(PACKET_INFO.size)


@dataclass
class _Check:
    """A health check: what it has said so far, and the number of the datagram that its answer waits for."""

    channel: socket.socket
    said: bytes = b""
    number: int = 0


@dataclass
class Server:
    """Serves a port by UDP, and by TCP for health checks; both families. Raises OSError when the port is taken."""

    name: str
    port: int
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _checks: dict[int, _Check] = field(default_factory=dict)
    _sent: int = 0

    def __post_init__(self) -> None:
        self._words = f"{self.name} {secrets.token_hex(4)} ".encode()
        self._listener = socket.create_server(
            ("::", self.port), family=socket.AF_INET6, backlog=256, dualstack_ipv6=True
        )
        self.port = self._listener.getsockname()[1]
        try:
            self._datagrams = _bound(self.port)
        except OSError:
            self._listener.close()
            raise
        self._own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._own.connect(("::1", self.port))
        self._watch(self._datagrams, self._echo)
        self._watch(self._listener, self._accept)
        self._watch(self._own, self._come_back)

    def serve(self) -> None:
        """Until the process ends."""
        while True:
            self.turn(None)

    def turn(self, longest_s: float | None) -> None:
        """Waits for the next thing to do, at most so long (None: for ever), and does what there is."""
        for key, _ in self._selector.select(longest_s):
            with suppress(BlockingIOError):
                key.data()

    def close(self) -> None:
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _watch(self, channel: socket.socket, act: Callable[[], None]) -> None:
        channel.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ, act)

    def _echo(self) -> None:
        """Answers go out from the address that was asked: a VIP, which the way back alone would not choose."""
        while True:
            data, ancillary, _, client = self._datagrams.recvmsg(MOST, ANCILLARY)
            asked = next(value for _, kind, value in ancillary if kind == socket.IPV6_PKTINFO)
            address, _ = PACKET_INFO.unpack(asked)
            # Interface 0: by whichever the route says, for it came in by a tunnel.
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, PACKET_INFO.pack(address, 0))
            with suppress(OSError):  # then it is lost, as datagrams may be
                self._datagrams.sendmsg([self._words, data], [info], 0, client)

    def _accept(self) -> None:
        channel, _ = self._listener.accept()
        check = _Check(channel)
        self._watch(channel, lambda: self._hear(check))

    def _hear(self, check: _Check) -> None:
        """What a health check says; once that is all, a datagram goes out for it."""
        if check.channel.fileno() < 0:  # it ended while this was about to be told
            return
        try:
            said = check.channel.recv(MOST)
        except ConnectionError:
            said = b""
        check.said += said
        if not said or len(check.said) > MOST:
            self._end(check)
        elif HEAD_END in check.said and not check.number:
            self._sent += 1
            check.number = self._sent
            self._checks[check.number] = check
            self._own.send(b"%d" % check.number)

    def _come_back(self) -> None:
        """Our own datagrams have been answered: so can be the health checks that wait for them."""
        while True:
            number = int(self._own.recv(MOST).rpartition(b" ")[2])
            if check := self._checks.get(number):
                with suppress(OSError):
                    check.channel.send(WELL)
                self._end(check)

    def _end(self, check: _Check) -> None:
        self._checks.pop(check.number, None)
        self._selector.unregister(check.channel)
        check.channel.close()


def _bound(port: int) -> socket.socket:
    """A socket for datagrams to all our addresses, which says to which one each is."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        made.bind(("::", port))
    except OSError:
        made.close()
        raise
    return made


def serve(name: str, ports: Sequence[int]) -> int:
    """Serves these ports in this process, which is a child of its own, until it ends."""
    *others, last = [Server(name, port) for port in ports]
    for server in others:
        threading.Thread(target=server.serve, daemon=True).start()
    last.serve()
    return 0
