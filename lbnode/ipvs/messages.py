"""What one system call reads from a netlink socket, taken apart into its messages. PURE.

A dump is thousands of messages that look alike. Where a whole buffer of them has one length, they are cut out by one
call of `struct` and not by a loop.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

DUMP_INTERRUPTED = 0x10
MESSAGE = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port (netlink.h, struct nlmsghdr)."""
GENERIC = struct.Struct("=BBH")
"""Command, version, reserved (genetlink.h, struct genlmsghdr)."""
BOTH = struct.Struct("=IHHIIBBH")
HEAD = BOTH.size


class Message(NamedTuple):
    """One answer: netlink's type, flags and sequence number; `body` is all that follows the netlink header."""

    type: int
    flags: int
    sequence: int
    body: bytes


def align(length: int) -> int:
    """Netlink pads everything to four bytes."""
    return (length + 3) & ~3


def messages(data: bytes, first: int, last: int) -> Iterator[Message]:
    """Those that answer the given sequence numbers."""
    at = 0
    while at + MESSAGE.size <= len(data):
        length, kind, flags, sequence, _ = MESSAGE.unpack_from(data, at)
        if first <= sequence <= last:
            yield Message(kind, flags, sequence, data[at + MESSAGE.size : at + length])
        at += align(max(length, MESSAGE.size))


def alike(data: bytes, family: int, sequence: int) -> list[bytes]:
    """The objects in `data` when it is nothing but answers of that family and number, of one length and without a flag
    that matters, as nearly all of a dump is: taken apart by the machine, not by a loop. Else nothing."""
    if len(data) < HEAD:
        return []
    length, kind, flags, number, _ = MESSAGE.unpack_from(data)
    each = align(length)
    if length < HEAD or len(data) % each or kind != family or number != sequence or flags & DUMP_INTERRUPTED:
        return []
    heads, objects = zip(*_apart(length).iter_unpack(data), strict=True)
    return list(objects) if heads.count(heads[0]) == len(heads) else []


@lru_cache(maxsize=16)
def _apart(length: int) -> struct.Struct:
    """Length, type, flags and sequence number of a message of that length; and its object."""
    return struct.Struct(f"=12s{HEAD - 12}x{length - HEAD}s{align(length) - length}x")
