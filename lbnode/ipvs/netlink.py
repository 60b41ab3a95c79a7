"""Generic netlink with nothing but the standard library: batches of requests, and dumps.

IPVS wants many small messages in one sendmsg; a message at a time costs one system call and one answer each. So every
message of a batch but the last goes without NLM_F_ACK: the kernel answers errors all the same, with the number of the
message they belong to (af_netlink.c, netlink_rcv_skb), and the acknowledgement of the last one ends the batch. A batch
is no transaction: messages after a failed one are carried out.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from lbnode.errors import LbnodeError, Missing, NotPermitted
from lbnode.ipvs.messages import BOTH, DUMP_INTERRUPTED, GENERIC, HEAD, Message, align, alike, messages

BATCH_BYTES = 60_000
"""Beyond some 8 kB larger batches gain nothing; 64 kB fit any socket buffer."""

_NETLINK_GENERIC = 16
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES = 4 << 20
_ANSWER_SECONDS = 10

_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300
_DUMP_ATTEMPTS = 8

_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2

_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")


class Request(NamedTuple):
    """One message: the family's command, and its attributes as bytes."""

    command: int
    payload: bytes = b""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(align(length) - length)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attribute number -> payload, flags masked off (netlink.h, NLA_TYPE_MASK). Raises LbnodeError on a torn one."""
    found: dict[int, bytes] = {}
    head = _ATTRIBUTE.unpack_from
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = head(data, at)
        if length < 4 or at + length > end:
            raise LbnodeError(f"cannot decode netlink attribute {kind}: its length is {length}")
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3  # align(), without the call: a dump has some 20 of these per destination
    return found


class GenericNetlink:
    """A socket to one generic-netlink family in the network namespace of the calling thread. A context manager.

    Raises Missing when the kernel does not know the family, NotPermitted when it refuses this user, LbnodeError on
    what cannot be helped (no answer, a buffer overrun).
    """

    def __init__(self, family: str) -> None:
        self._family_name = family
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
        try:
            self._prepare()
            self._family = self._resolve(family)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, groups: Sequence[Sequence[Request]]) -> list[list[int]]:
        """Carries out all requests in order. Answers the errno of each, 0 for success, in the shape of `groups`.

        A group is never torn apart: its messages reach the kernel in one sendmsg.
        """
        outcomes: list[list[int]] = []
        for batch in _batches(groups):
            codes = iter(self._send([request for group in batch for request in group]))
            outcomes += [[next(codes) for _ in group] for group in batch]
        return outcomes

    def ask(self, request: Request) -> bytes:
        """The attributes of the one object that answers."""
        sequence = self._next()
        self._write(_pack(self._family, _REQUEST, sequence, request))
        message = next(self._answers(sequence, sequence))
        if message.type == _ERROR:
            self._raise_if(-_CODE.unpack_from(message.body)[0])
        return message.body[GENERIC.size :]

    def dump(self, request: Request) -> list[bytes]:
        """All objects that match, each as its attributes. Starts over when they changed meanwhile (DUMP_INTR)."""
        for _ in range(_DUMP_ATTEMPTS):
            sequence = self._next()
            self._write(_pack(self._family, _REQUEST | _DUMP, sequence, request))
            objects: list[bytes] = []
            interrupted = done = False
            while not done:
                data = self._receive()
                if equal := alike(data, self._family, sequence):
                    objects += equal
                    continue
                for message in messages(data, sequence, sequence):
                    interrupted |= bool(message.flags & DUMP_INTERRUPTED)
                    if message.type in (_ERROR, _DONE):
                        self._raise_if(-_CODE.unpack_from(message.body)[0])
                        done = True
                        break
                    objects.append(message.body[GENERIC.size :])
            if not interrupted:
                return objects
        raise LbnodeError(f"cannot read {self._family_name}: it changed {_DUMP_ATTEMPTS} times while it was read")

    def _prepare(self) -> None:
        for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
        # Errors then carry the header of the message they belong to, not all of it.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _ANSWER_SECONDS, 0))
        self._socket.bind((0, 0))

    def _resolve(self, family: str) -> int:
        name = family.encode() + b"\0"
        wanted = attribute(_FAMILY_NAME, name)
        sequence = self._next()
        self._write(_pack(_CONTROLLER, _REQUEST, sequence, Request(_GET_FAMILY, wanted)))
        message = next(self._answers(sequence, sequence))
        if message.type == _ERROR:
            code = -_CODE.unpack_from(message.body)[0]
            if code == errno.ENOENT:
                raise Missing(f"cannot use {family}: the kernel has no such netlink family")
            self._raise_if(code)
        return int.from_bytes(attributes(message.body[GENERIC.size :])[_FAMILY_ID], sys.byteorder)

    def _send(self, requests: Sequence[Request]) -> list[int]:
        if not requests:
            return []
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(requests)
        family = self._family
        packed = [_pack(family, _REQUEST, first + index, request) for index, request in enumerate(requests[:-1])]
        packed.append(_pack(family, _REQUEST | _ACK, last, requests[-1]))
        self._write(b"".join(packed))
        codes = [0] * len(requests)
        for message in self._answers(first, last):
            if message.type == _ERROR:
                code = -_CODE.unpack_from(message.body)[0]
                if code == errno.EPERM:
                    self._raise_if(code)
                codes[message.sequence - first] = code
                if message.sequence == last:
                    break
        return codes

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _write(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise LbnodeError(f"cannot write to {self._family_name}: {error.strerror}") from error

    def _answers(self, first: int, last: int) -> Iterator[Message]:
        """Messages that answer the given sequence numbers, without end: the caller knows which is the last."""
        while True:
            yield from messages(self._receive(), first, last)

    def _receive(self) -> bytes:
        """What one system call gives: one or more messages."""
        try:
            return self._socket.recv(1 << 16)
        except BlockingIOError as error:
            raise LbnodeError(f"cannot read {self._family_name}: no answer in {_ANSWER_SECONDS} s") from error
        except OSError as error:
            raise LbnodeError(f"cannot read {self._family_name}: {error.strerror}") from error

    def _raise_if(self, code: int) -> None:
        if code == errno.EPERM:
            raise NotPermitted(f"cannot use {self._family_name}: the kernel asks for CAP_NET_ADMIN; run as root")
        if code:
            raise LbnodeError(
                f"cannot read {self._family_name}: {os.strerror(code)} ({errno.errorcode.get(code, code)})"
            )


def _pack(family: int, flags: int, sequence: int, request: Request) -> bytes:
    length = HEAD + len(request.payload)
    return BOTH.pack(length, family, flags, sequence, 0, request.command, 1, 0) + request.payload


def _batches(groups: Sequence[Sequence[Request]]) -> Iterator[Sequence[Sequence[Request]]]:
    """Runs of whole groups of at most BATCH_BYTES; a larger group travels alone."""
    start, size = 0, 0
    for index, group in enumerate(groups):
        length = sum([HEAD + len(request.payload) for request in group])
        if size and size + length > BATCH_BYTES:
            yield groups[start:index]
            start, size = index, 0
        size += length
    if start < len(groups):
        yield groups[start:]
