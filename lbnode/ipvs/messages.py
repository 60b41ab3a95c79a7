"""Netlink messages as bytes: what is sent, and what one system call reads, taken apart. PURE.

What comes in is not trusted. Lengths that do not fit, messages of a kind that nobody asked for, codes that are none:
all of that is `Unclear`, and is asked for again (`lbnode.ipvs.netlink`), not taken for an answer with less in it.

A dump is thousands of messages that look alike. Where a whole buffer of them has one length, they are cut out by one
call of `struct` and not by a loop.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from lbnode.errors import LbnodeError

ERROR, DONE = 2, 3
"""Types of messages (netlink.h, NLMSG_*); those of a family have the number of it."""
_NOOP, _OVERRUN = 1, 4
REQUEST, ACK, DUMP = 0x01, 0x04, 0x300
DUMP_INTERRUPTED = 0x10
_MESSAGE = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port (netlink.h, struct nlmsghdr)."""
_GENERIC = struct.Struct("=BBH")
"""Command, version, reserved (genetlink.h, struct genlmsghdr)."""
BOTH = struct.Struct("=IHHIIBBH")
HEAD = BOTH.size
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")


class Unclear(LbnodeError):
    """An answer was torn, lost, or overtaken by a change: to be asked for again."""

    exit_code = 75


class Refused(LbnodeError):
    """The kernel has answered with an errno, `code`."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(f"{words}: {os.strerror(code)} ({errno.errorcode.get(code, code)})")
        self.code = code


class Silent(Unclear):
    """There was no answer for a long time: no use in asking for less."""


class Request(NamedTuple):
    """One message: the family's command, and its attributes as bytes."""

    command: int
    payload: bytes = b""


class Message(NamedTuple):
    """One answer: netlink's type, flags and sequence number; `body` is all that follows the netlink header."""

    type: int
    flags: int
    sequence: int
    body: bytes

    @property
    def payload(self) -> bytes:
        """The attributes of an object. Raises Unclear when there is none."""
        if len(self.body) < _GENERIC.size:
            raise Unclear("cannot decode netlink messages: one has no object in it")
        return self.body[_GENERIC.size :]

    @property
    def code(self) -> int:
        """The errno of an ERROR or DONE, 0 for success. Raises Unclear when there is none."""
        code = -_CODE.unpack_from(self.body)[0] if len(self.body) >= _CODE.size else -1
        if not 0 <= code <= 4095:  # include/linux/err.h, MAX_ERRNO
            raise Unclear("cannot decode netlink messages: one has no error code in it")
        return code


def align(length: int) -> int:
    """Netlink pads everything to four bytes."""
    return (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(align(length) - length)


def attributes(data: bytes, *, unique: bool = False) -> dict[int, bytes]:
    """Attribute number -> payload, flags masked off (netlink.h, NLA_TYPE_MASK). Raises LbnodeError on a torn one; and,
    where each is to be unique (fillers may not be), on one that comes twice."""
    found: dict[int, bytes] = {}
    head = _ATTRIBUTE.unpack_from
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = head(data, at)
        number = kind & 0x3FFF
        if length < 4 or at + length > end or not number:  # 0 is nobody's (*_ATTR_UNSPEC)
            raise LbnodeError(f"cannot decode netlink attribute {number}: its length is {length}")
        if unique and number in found:
            raise LbnodeError(f"cannot decode netlink attribute {number}: it comes twice")
        found[number] = data[at + 4 : at + length]
        at += (length + 3) & ~3  # align(), without the call: a dump has some 20 of these per destination
    if at < end:
        raise LbnodeError(f"cannot decode netlink attributes: {end - at} bytes are left over")
    return found


def pack(family: int, flags: int, sequence: int, request: Request) -> bytes:
    length = HEAD + len(request.payload)
    return BOTH.pack(length, family, flags, sequence, 0, request.command, 1, 0) + request.payload


def batches(groups: Sequence[Sequence[Request]], limit: int) -> Iterator[Sequence[Sequence[Request]]]:
    """Runs of whole groups of at most `limit` bytes; a larger group travels alone."""
    start, size = 0, 0
    for index, group in enumerate(groups):
        length = sum([HEAD + len(request.payload) for request in group])
        if size and size + length > limit:
            yield groups[start:index]
            start, size = index, 0
        size += length
    if start < len(groups):
        yield groups[start:]


def messages(data: bytes, first: int, last: int) -> list[Message]:
    """Those that answer the given sequence numbers: none, when `data` is about something else. Raises Unclear when it
    is not made of whole messages, or about both (the kernel never mixes them), or says that some were lost."""
    found: list[Message] = []
    at, end, others = 0, len(data), 0
    while at < end:
        if end - at < _MESSAGE.size:
            raise Unclear(f"cannot decode netlink messages: {end - at} bytes are left over")
        length, kind, flags, sequence, _ = _MESSAGE.unpack_from(data, at)
        if length < _MESSAGE.size or at + length > end:
            raise Unclear(f"cannot decode netlink messages: the length of one is {length}, of {end - at} left")
        if kind in (_NOOP, _OVERRUN):
            raise Unclear("cannot decode netlink messages: the kernel has lost some")
        if first <= sequence <= last:
            found.append(Message(kind, flags, sequence, data[at + _MESSAGE.size : at + length]))
        else:
            others += 1
        at += align(length)
    if found and others:
        raise Unclear("cannot decode netlink messages: the answers to two questions are mixed")
    return found


def alike(data: bytes, family: int, sequence: int) -> list[bytes]:
    """The objects in `data` when it is nothing but answers of that family and number, of one length and without a flag
    that matters, as nearly all of a dump is: taken apart by the machine, not by a loop. Else nothing."""
    if len(data) < HEAD:
        return []
    length, kind, flags, number, _ = _MESSAGE.unpack_from(data)
    each = align(length)
    if length < HEAD or len(data) % each or kind != family or number != sequence or flags & DUMP_INTERRUPTED:
        return []
    heads, objects = zip(*_apart(length).iter_unpack(data), strict=True)
    return list(objects) if heads.count(heads[0]) == len(heads) else []


@lru_cache(maxsize=16)
def _apart(length: int) -> struct.Struct:
    """Length, type, flags and sequence number of a message of that length; and its object."""
    return struct.Struct(f"=12s{HEAD - 12}x{length - HEAD}s{align(length) - length}x")
