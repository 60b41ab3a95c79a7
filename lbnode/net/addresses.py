"""Host addresses on devices: thousands in a few milliseconds, as a node may carry a thousand VIPs.

Sources: rtnetlink(7), include/uapi/linux/{rtnetlink,if_addr}.h, net/ipv4/devinet.c, net/ipv6/addrconf.c.
"""

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from lbnode.net import rtnetlink
from lbnode.net.rtnetlink import Message, attribute

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200

BODY = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, device index
# At once usable: no duplicate detection, and no route but the local one.
IPV6_FLAGS = rtnetlink.number(IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE)


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
    outcome = rtnetlink.exchange([_message(step) for step in steps])
    return [_settled(step, code) for step, code in zip(steps, outcome, strict=True)]


def dump() -> list[Assigned]:
    """Every IPv4 and IPv6 address of this network namespace. Raises OSError, and NotReady when they keep changing."""
    found = rtnetlink.dump(RTM_GETADDR, bytes(BODY.size), RTM_NEWADDR, "addresses")
    return [assigned(payload) for payload in found]


def assigned(payload: memoryview) -> Assigned:
    """The address in one answer."""
    _, prefix_length, _, scope, index = BODY.unpack_from(payload)
    attributes = rtnetlink.attributes(payload, BODY.size)
    # With a peer, IFA_ADDRESS is the other end (if_addr.h).
    raw = attributes.get(IFA_LOCAL) or attributes[IFA_ADDRESS]
    return Assigned(index, str(ip_address(raw)), prefix_length, scope)


def _message(step: Step) -> Message:
    address = ip_address(step.address)
    body = BODY.pack(*_family(address), 0, 0, step.index)
    body += attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
    if step.add and address.version == 6:
        body += IPV6_FLAGS
    if step.add:
        return Message(RTM_NEWADDR, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE, body)
    return Message(RTM_DELADDR, 0, body)


def _family(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    return (socket.AF_INET if address.version == 4 else socket.AF_INET6, address.max_prefixlen)


def _settled(step: Step, error: int) -> int:
    """A removal of what is gone already is done: the address (EADDRNOTAVAIL) or its device (ENODEV)."""
    return 0 if not step.add and error in (errno.EADDRNOTAVAIL, errno.ENODEV) else error
