"""Which route the kernel would use for an address, with all of its next hops. It reads and changes nothing.

`RTM_F_FIB_MATCH` asks for the entry of the table instead of the one way that a packet would take (rtnetlink(7);
net/ipv4/route.c, inet_rtm_getroute; net/ipv6/route.c, inet6_rtm_getroute), so a router's whole table need not be read.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from lbnode.net import rtnetlink
from lbnode.net.rtnetlink import Message, attribute

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_F_FIB_MATCH = 0x2000
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA = 1, 4, 5, 9, 18
BODY = struct.Struct("=8BI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface


@dataclass(frozen=True)
class NextHop:
    """`gateway` is "" for a route without one; `device` is "" when the interface has just gone."""

    gateway: str
    device: str


@dataclass(frozen=True)
class Match:
    """`prefix_length` is that of the entry, 0 for a default route."""

    prefix_length: int
    next_hops: tuple[NextHop, ...]


def lookup(address: str) -> Match | None:
    """None when the address cannot be reached. Raises OSError when the kernel does not answer."""
    target = ip_address(address)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    body = BODY.pack(family, target.max_prefixlen, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    try:
        payload = rtnetlink.ask(Message(RTM_GETROUTE, 0, body + attribute(RTA_DST, target.packed)), RTM_NEWROUTE)
    except TimeoutError:
        raise
    except OSError:  # ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL: no route, or one that refuses
        return None
    return Match(payload[1], tuple(_next_hops(rtnetlink.attributes(payload, BODY.size))))


def _next_hops(found: dict[int, bytes]) -> Iterator[NextHop]:
    rest = memoryview(found.get(RTA_MULTIPATH, b""))
    if not rest:
        yield _next_hop(found, struct.unpack("=i", found[RTA_OIF])[0] if RTA_OIF in found else 0)
    while len(rest) >= NEXT_HOP.size:
        length, _, _, index = NEXT_HOP.unpack_from(rest)
        yield _next_hop(rtnetlink.attributes(rest[:length], NEXT_HOP.size), index)
        rest = rest[(length + 3) & ~3 :]


def _next_hop(found: dict[int, bytes], index: int) -> NextHop:
    # RTA_VIA: a gateway of another family, after two octets of its own (struct rtvia).
    raw = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
    try:
        device = socket.if_indextoname(index) if index else ""
    except OSError:
        device = ""
    return NextHop(str(ip_address(raw)) if raw else "", device)
