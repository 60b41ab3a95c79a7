"""Generic netlink with nothing but the standard library: batches of requests, and dumps.

IPVS wants many small messages in one sendmsg; a message at a time costs one system call and one answer each. So every
message of a batch but the last goes without NLM_F_ACK: the kernel answers errors all the same, with the number of the
message they belong to (af_netlink.c, netlink_rcv_skb), and the acknowledgement of the last one ends the batch. A batch
is no transaction: messages after a failed one are carried out.

What is unclear is asked for again, with a number of its own: an answer that comes too late is nobody's.
"""

import errno
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TypeVar

from lbnode.errors import LbnodeError, Missing, NotPermitted
from lbnode.ipvs.endpoint import ANSWER_SECONDS, Wire, open_endpoint
from lbnode.ipvs.messages import (
    ACK,
    DONE,
    DUMP,
    DUMP_INTERRUPTED,
    ERROR,
    REQUEST,
    Message,
    Refused,
    Request,
    Silent,
    Unclear,
    alike,
    attribute,
    attributes,
    batches,
    messages,
    pack,
)

__all__ = ["BATCH_BYTES", "GenericNetlink", "Refused", "Request", "Wire", "attribute", "attributes"]

BATCH_BYTES = 60_000
"""Beyond some 8 kB larger batches gain nothing; 64 kB fit any socket buffer."""

_READ_BYTES = 1 << 16
_ATTEMPTS = 8
_DRAINED = 10_000
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENOMEM}

_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2

T = TypeVar("T")


class GenericNetlink:
    """A socket to one generic-netlink family in the network namespace of the calling thread. A context manager.

    Raises Missing when the kernel does not know the family, NotPermitted when it refuses this user, LbnodeError on
    what cannot be helped: no answer, or none that is clear, however often it is asked for.
    """

    def __init__(self, family: str, wire: Wire | None = None) -> None:
        self._family_name = family
        self._sequence = 0
        self._buffer = bytearray(_READ_BYTES)
        self._wire = wire or open_endpoint()
        try:
            self._family = self._resolve(family)
        except BaseException:
            self._wire.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def exchange(self, groups: Sequence[Sequence[Request]]) -> list[list[int]]:
        """Carries out all requests in order. Answers the errno of each, 0 for success, in the shape of `groups`.

        A group is never torn apart: its messages reach the kernel in one sendmsg. Where answers are lost, a batch is
        sent again in smaller parts; so something may have been done already (EEXIST, ENOENT) that this call has done.
        """
        outcomes: list[list[int]] = []
        for batch in batches(groups, BATCH_BYTES):
            outcomes += self._settle(batch)
        return outcomes

    def ask(self, request: Request) -> bytes:
        """The attributes of the one object that answers."""
        return self._again(lambda: self._ask_once(self._family, request))

    def dump(self, request: Request) -> list[bytes]:
        """All objects that match, each as its attributes: all of them, or an error."""
        return self._again(lambda: self._dump_once(request))

    def _again(self, attempt: Callable[[], T]) -> T:
        """Tries until the answer is clear, some times, for as long as one answer may take."""
        deadline = time.monotonic() + ANSWER_SECONDS
        for _ in range(_ATTEMPTS - 1):
            try:
                return attempt()
            except Unclear:
                if time.monotonic() > deadline:
                    raise
                self._drain()
        return attempt()

    def _ask_once(self, family: int, request: Request) -> bytes:
        sequence = self._next()
        self._write(pack(family, REQUEST, sequence, request))
        message = next(self._answers(sequence, sequence))
        if message.type == ERROR and message.code:
            self._fail(message.code, passing=message.code in _PASSING)
        if message.type != family:
            raise Unclear(f"cannot read {self._family_name}: a message of type {message.type} is no answer")
        return message.payload

    def _dump_once(self, request: Request) -> list[bytes]:
        sequence = self._next()
        self._write(pack(self._family, REQUEST | DUMP, sequence, request))
        objects: list[bytes] = []
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            data = self._receive()
            if equal := alike(data, self._family, sequence):
                objects += equal
                continue
            for message in messages(data, sequence, sequence):
                if message.flags & DUMP_INTERRUPTED:
                    raise Unclear(f"cannot read {self._family_name}: it changes while it is read")
                if message.type in (DONE, ERROR):
                    if message.code:
                        self._fail(message.code, passing=True)
                    return self._whole(message, objects)
                if message.type != self._family:
                    raise Unclear(f"cannot read {self._family_name}: a message of type {message.type} is no answer")
                objects.append(message.payload)
        raise LbnodeError(f"cannot read {self._family_name}: no end in {ANSWER_SECONDS} s")

    def _whole(self, end: Message, objects: list[bytes]) -> list[bytes]:
        if end.type == ERROR:
            raise Unclear(f"cannot read {self._family_name}: an acknowledgement is no answer")
        return objects

    def _resolve(self, family: str) -> int:
        wanted = Request(_GET_FAMILY, attribute(_FAMILY_NAME, family.encode() + b"\0"))
        try:
            found = attributes(self._again(lambda: self._ask_once(_CONTROLLER, wanted))).get(_FAMILY_ID, b"")
        except Refused as error:
            if error.code != errno.ENOENT:
                raise
            raise Missing(f"cannot use {family}: the kernel has no such netlink family") from error
        number = int.from_bytes(found, sys.byteorder)
        if len(found) != 2 or number <= _CONTROLLER:
            raise LbnodeError(f"cannot use {family}: the kernel gives it number {number}")
        return number

    def _settle(self, batch: Sequence[Sequence[Request]]) -> list[list[int]]:
        """Sends a batch; when its answers are lost, its halves, and a single group some times."""
        if len(batch) == 1:
            codes = iter(self._again(lambda: self._send(batch[0])))
            return [list(codes)]
        try:
            codes = iter(self._send([request for group in batch for request in group]))
        except Silent:
            raise
        except Unclear:
            self._drain()
            half = len(batch) // 2
            return self._settle(batch[:half]) + self._settle(batch[half:])
        return [[next(codes) for _ in group] for group in batch]

    def _send(self, requests: Sequence[Request]) -> list[int]:
        if not requests:
            return []
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(requests)
        family = self._family
        packed = [pack(family, REQUEST, first + index, request) for index, request in enumerate(requests[:-1])]
        packed.append(pack(family, REQUEST | ACK, last, requests[-1]))
        self._write(b"".join(packed))
        codes = [0] * len(requests)
        for message in self._answers(first, last):
            if message.type != ERROR:
                raise Unclear(f"cannot write to {self._family_name}: a message of type {message.type} is no answer")
            if message.code == errno.EPERM:
                self._fail(message.code)
            codes[message.sequence - first] = message.code
            if message.sequence == last:
                break
        return codes

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _write(self, data: bytes) -> None:
        try:
            self._wire.send(data)
        except OSError as error:
            raise LbnodeError(f"cannot write to {self._family_name}: {error.strerror}") from error

    def _answers(self, first: int, last: int) -> Iterator[Message]:
        """Messages that answer the given sequence numbers; the caller knows which is the last."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            yield from messages(self._receive(), first, last)
        raise LbnodeError(f"cannot read {self._family_name}: no answer in {ANSWER_SECONDS} s")

    def _receive(self) -> bytes:
        """What one system call gives: one or more messages. Raises Unclear where some are lost, or all."""
        while True:
            try:
                size, (sender, *_) = self._wire.recvfrom_into(self._buffer, 0, socket.MSG_TRUNC)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    why = f"no answer in {ANSWER_SECONDS} s"
                    raise Silent(f"cannot read {self._family_name}: {why}") from error
                kind = Unclear if error.errno in _PASSING else LbnodeError
                raise kind(f"cannot read {self._family_name}: {error.strerror}") from error
            if not 0 < size <= _READ_BYTES:
                raise Unclear(f"cannot read {self._family_name}: an answer of {size} bytes")
            if sender == 0:  # the kernel
                return bytes(memoryview(self._buffer)[:size])

    def _drain(self) -> None:
        """Reads what is left of earlier answers: as long as a dump is not read to its end, the kernel refuses another
        one (EBUSY)."""
        for _ in range(_DRAINED):
            try:
                self._wire.recvfrom_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return

    def _fail(self, code: int, *, passing: bool = False) -> None:
        if code == errno.EPERM:
            raise NotPermitted(f"cannot use {self._family_name}: the kernel asks for CAP_NET_ADMIN; run as root")
        refused = Refused(f"cannot read {self._family_name}", code)
        if passing:
            raise Unclear(str(refused)) from refused
        raise refused
