"""Hand-packed rtnetlink: batches of messages, and dumps that are whole. What addresses, rules and routes share.

pyroute2 needs about 0.3 ms for each object, to write or to read, and every pass reads them all; the messages are some
50 bytes of fixed form, so they are packed by their modules and sent from here, a batch at a time.

Sources: rtnetlink(7), netlink(7), include/uapi/linux/{netlink,rtnetlink}.h, net/netlink/af_netlink.c.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lbnode.errors import NotReady

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 12

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
NUMBER = struct.Struct("=I")
BATCH = 64  # answers wait in the socket's buffer (about 1 kB each of 208 kB) until the batch is through
DUMP_TRIES = 10
DEADLINE_S = 10.0


class Message(NamedTuple):
    """One request: its type, its flags beside REQUEST, and what follows the netlink header."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, NUMBER.pack(value))


def attributes(payload: memoryview, at: int) -> dict[int, bytes]:
    """Attribute number -> payload, of what begins at `at`; stops at a torn one."""
    found: dict[int, bytes] = {}
    while at + ATTRIBUTE.size <= len(payload):
        length, kind = ATTRIBUTE.unpack_from(payload, at)
        if length < ATTRIBUTE.size:
            break
        found[kind] = bytes(payload[at + ATTRIBUTE.size : at + length])
        at += (length + 3) & ~3
    return found


def exchange(messages: Sequence[Message]) -> list[int]:
    """Carries out the messages in order. Returns one errno each, 0 when it was done.

    Raises OSError when the kernel does not answer.
    """
    outcome: list[int] = []
    with _open() as channel:
        for first in range(0, len(messages), BATCH):
            batch = messages[first : first + BATCH]
            channel.send(b"".join(_pack(message, NLM_F_ACK, sequence) for sequence, message in enumerate(batch)))
            answers = _acknowledgements(channel, len(batch))
            outcome += [answers[sequence] for sequence in range(len(batch))]
    return outcome


def dump(request: int, body: bytes, answer: int, what: str) -> list[memoryview]:
    """The payload of every object of type `answer`; the kernel checks `body` strictly and filters by it.

    Raises OSError, and NotReady when `what` kept changing while it was read.
    """
    with _open() as channel:
        channel.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        for sequence in range(1, DUMP_TRIES + 1):
            channel.send(_pack(Message(request, 0, body), NLM_F_DUMP, sequence))
            found, whole = collect(channel, sequence, answer)
            if whole:
                return found
    raise NotReady(f"cannot read the {what}: they changed during each of {DUMP_TRIES} attempts")


def ask(message: Message, answer: int) -> memoryview:
    """The payload of the one object of type `answer` that a request gets. Raises OSError."""
    with _open() as channel:
        channel.send(_pack(message, 0, 1))
        for kind, _, _, payload in _messages(channel.recv(1 << 16)):
            if kind == answer:
                return payload
            if kind == NLMSG_ERROR:
                error = -struct.unpack_from("=i", payload)[0]
                raise OSError(error, os.strerror(error))
    raise OSError("the kernel answers with something else")


def collect(channel: socket.socket, sequence: int, answer: int) -> tuple[list[memoryview], bool]:
    """The objects of one dump, and whether nothing changed while it ran."""
    found: list[memoryview] = []
    whole = True
    while True:
        for kind, flags, number_, payload in _messages(channel.recv(1 << 16)):
            if number_ != sequence:
                continue
            whole = whole and not flags & NLM_F_DUMP_INTR
            # DONE carries an errno as well (net/ipv4/fib_frontend.c, inet_dump_fib).
            if kind in (NLMSG_ERROR, NLMSG_DONE) and (error := -struct.unpack_from("=i", payload)[0]):
                raise OSError(error, os.strerror(error))
            if kind == NLMSG_DONE:
                return found, whole
            if kind == answer:
                found.append(payload)


def _open() -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    channel.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # an error does not repeat the message it answers
    channel.settimeout(DEADLINE_S)
    return channel


def _pack(message: Message, want: int, sequence: int) -> bytes:
    flags = NLM_F_REQUEST | message.flags | want
    return HEADER.pack(HEADER.size + len(message.body), message.kind, flags, sequence, 0) + message.body


def _acknowledgements(channel: socket.socket, count: int) -> dict[int, int]:
    """Sequence number -> errno, for as many messages as were sent."""
    answers: dict[int, int] = {}
    while len(answers) < count:
        for kind, _, sequence, payload in _messages(channel.recv(1 << 16)):
            if kind == NLMSG_ERROR:
                answers[sequence] = -struct.unpack_from("=i", payload)[0]
    return answers


def _messages(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Type, flags, sequence number and payload of each message in one datagram."""
    view, at = memoryview(data), 0
    while at + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            raise OSError("the kernel sent a netlink message shorter than its header")
        yield kind, flags, sequence, view[at + HEADER.size : at + length]
        at += (length + 3) & ~3
