"""A netlink socket without a kernel behind it: answers as they were recorded, or as bad as a test wants them."""

import errno
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

FAMILY = 29
ERROR, DONE, OVERRUN = 2, 3, 4
MULTI, INTERRUPTED = 0x02, 0x10

Datagram = bytes | OSError


def message(kind: int, sequence: int, body: bytes, flags: int = MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 4242) + body + bytes(-len(body) % 4)


def code(kind: int, sequence: int, number: int) -> bytes:
    """An ERROR or DONE; with the header of the message it belongs to, as the kernel sends them."""
    return message(kind, sequence, struct.pack("=i", -number) + bytes(16 if kind == ERROR else 0))


def dump(sequence: int, payloads: Iterable[bytes], command: int = 1) -> list[bytes]:
    """As the kernel answers: the objects in one datagram, the end in another."""
    objects = b"".join(message(FAMILY, sequence, bytes([command, 1, 0, 0]) + payload) for payload in payloads)
    return [*([objects] if objects else []), code(DONE, sequence, 0)]


def family(sequence: int) -> list[bytes]:
    """The answer to a look-up of the family's number."""
    return [message(0x10, sequence, bytes([1, 2, 0, 0]) + struct.pack("=HHH2x", 6, 1, FAMILY), 0)]


@dataclass
class Wire:
    """`answer` gives the datagrams for one that was sent, by the sequence number and command of its last message."""

    answer: Callable[[int, int], Iterable[Datagram]]
    waiting: list[Datagram] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    closed: bool = False

    def send(self, data: bytes, /) -> int:
        self.sent.append(data)
        at = 0
        while at < len(data):
            length, kind, _, sequence, _, command = struct.unpack_from("=IHHIIB", data, at)
            at += (length + 3) & ~3
        self.waiting += family(sequence) if kind == 0x10 else self.answer(sequence, command)
        return len(data)

    def recvfrom_into(self, buffer: bytearray, nbytes: int, flags: int, /) -> tuple[int, tuple[int, int]]:
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        data = self.waiting.pop(0)
        if isinstance(data, OSError):
            raise data
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        return len(data), (0, 0)

    def close(self) -> None:
        self.closed = True
