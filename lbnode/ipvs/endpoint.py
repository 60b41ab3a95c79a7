"""The end of a netlink connection: a socket of the kernel's, or what stands for one in a test."""

import socket
import struct
from typing import Protocol

ANSWER_SECONDS = 10
_NETLINK_GENERIC = 16
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES = 4 << 20


class Wire(Protocol):
    """What is needed of a netlink socket."""

    def send(self, data: bytes, /) -> int: ...
    def recvfrom_into(self, buffer: bytearray, nbytes: int, flags: int, /) -> tuple[int, tuple[int, int]]: ...
    def close(self) -> None: ...


def open_endpoint() -> socket.socket:
    """A netlink socket of the calling thread's network namespace."""
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
    try:
        for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                found.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                found.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
        # Errors then carry the header of the message they belong to, not all of it.
        found.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", ANSWER_SECONDS, 0))
        found.bind((0, 0))
    except BaseException:
        found.close()
        raise
    return found
