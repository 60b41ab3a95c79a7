"""Host addresses on devices by hand-packed rtnetlink: thousands in a few milliseconds.

A node may carry a thousand VIPs, and every pass reads them all. pyroute2 needs about 0.3 ms for each, to write or to
read; the messages are 48 bytes of fixed form, so they are packed here and sent a batch at a time.

Sources: rtnetlink(7), include/uapi/linux/{netlink,rtnetlink,if_addr}.h, net/ipv4/devinet.c, net/ipv6/addrconf.c.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from lbnode.errors import NotReady

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_DUMP, NLM_F_CREATE = 0x1, 0x4, 0x10, 0x100, 0x300, 0x400
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
BODY = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, device index
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
# At once usable: no duplicate detection, and no route but the local one.
IPV6_FLAGS = struct.pack("=HHI", 8, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE)
BATCH = 64  # answers wait in the socket's buffer (about 1 kB each of 208 kB) until the batch is through
DUMP_TRIES = 10
DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address as the kernel holds it. `scope` 0 is global (rtnetlink.h, RT_SCOPE_UNIVERSE); text is canonical."""

    index: int
    address: str
    prefix_length: int
    scope: int

    @property
    def is_host(self) -> bool:
        """A host prefix of global scope: what a VIP looks like."""
        return self.scope == 0 and self.prefix_length == (128 if ":" in self.address else 32)


@dataclass(frozen=True, slots=True)
class Step:
    """Put a host address on the device with this index, or take it off."""

    index: int
    address: str
    add: bool = True


def program(steps: Sequence[Step]) -> list[int]:
    """Carries out the steps in order. Returns one errno each, 0 when it was done.

    Adding what is there and removing what is not are 0 too. Raises OSError when the kernel does not answer.
    """
    outcome: list[int] = []
    with _open() as channel:
        for first in range(0, len(steps), BATCH):
            batch = steps[first : first + BATCH]
            channel.send(b"".join(_pack(step, number) for number, step in enumerate(batch)))
            answers = _acknowledgements(channel, len(batch))
            outcome += [_settled(step, answers[number]) for number, step in enumerate(batch)]
    return outcome


def dump() -> list[Assigned]:
    """Every IPv4 and IPv6 address of this network namespace. Raises OSError, and NotReady when they keep changing."""
    with _open() as channel:
        for number in range(1, DUMP_TRIES + 1):
            request = HEADER.pack(HEADER.size + BODY.size, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, number, 0)
            channel.send(request + bytes(BODY.size))
            found, whole = _collect(channel, number)
            if whole:
                return found
    raise NotReady(f"cannot read the addresses: they changed during each of {DUMP_TRIES} attempts")


def _open() -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    channel.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # an error does not repeat the message it answers
    channel.settimeout(DEADLINE_S)
    return channel


def _pack(step: Step, number: int) -> bytes:
    address = ip_address(step.address)
    body = BODY.pack(*_family(address), 0, 0, step.index)
    for kind in (IFA_LOCAL, IFA_ADDRESS):
        body += ATTRIBUTE.pack(ATTRIBUTE.size + len(address.packed), kind) + address.packed
    if step.add and address.version == 6:
        body += IPV6_FLAGS
    flags = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_CREATE | NLM_F_REPLACE if step.add else 0)
    return HEADER.pack(HEADER.size + len(body), RTM_NEWADDR if step.add else RTM_DELADDR, flags, number, 0) + body


def _family(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    return (socket.AF_INET if address.version == 4 else socket.AF_INET6, address.max_prefixlen)


def _settled(step: Step, error: int) -> int:
    """A removal of what is gone already is done: the address (EADDRNOTAVAIL) or its device (ENODEV)."""
    return 0 if not step.add and error in (errno.EADDRNOTAVAIL, errno.ENODEV) else error


def _acknowledgements(channel: socket.socket, count: int) -> dict[int, int]:
    """Sequence number -> errno, for as many messages as were sent."""
    answers: dict[int, int] = {}
    while len(answers) < count:
        for kind, _, number, payload in _messages(channel.recv(1 << 16)):
            if kind == NLMSG_ERROR:
                answers[number] = -struct.unpack_from("=i", payload)[0]
    return answers


def _collect(channel: socket.socket, number: int) -> tuple[list[Assigned], bool]:
    """The addresses of one dump, and whether nothing changed while it ran."""
    found: list[Assigned] = []
    whole = True
    while True:
        for kind, flags, sequence, payload in _messages(channel.recv(1 << 16)):
            if sequence != number:
                continue
            whole = whole and not flags & NLM_F_DUMP_INTR
            if kind == NLMSG_DONE:
                return found, whole
            if kind == NLMSG_ERROR:
                error = -struct.unpack_from("=i", payload)[0]
                raise OSError(error, os.strerror(error))
            if kind == RTM_NEWADDR:
                found.append(_assigned(payload))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Type, flags, sequence number and payload of each message in one datagram."""
    view, at = memoryview(data), 0
    while at + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            raise OSError("the kernel sent a netlink message shorter than its header")
        yield kind, flags, sequence, view[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def _assigned(payload: memoryview) -> Assigned:
    _, prefix_length, _, scope, index = BODY.unpack_from(payload)
    attributes: dict[int, bytes] = {}
    at = BODY.size
    while at + ATTRIBUTE.size <= len(payload):
        length, kind = ATTRIBUTE.unpack_from(payload, at)
        if length < ATTRIBUTE.size:
            break
        if kind in (IFA_LOCAL, IFA_ADDRESS):
            attributes[kind] = bytes(payload[at + ATTRIBUTE.size : at + length])
        at += (length + 3) & ~3
    # With a peer, IFA_ADDRESS is the other end (if_addr.h).
    raw = attributes.get(IFA_LOCAL) or attributes[IFA_ADDRESS]
    return Assigned(index, str(ip_address(raw)), prefix_length, scope)
