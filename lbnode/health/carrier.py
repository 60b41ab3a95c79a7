"""Whether the link that a silent probe left by works at all: a node whose own cable is out must blame nobody.

The link is the one that holds the probe's source. An address on loopback, as routers like it, tells nothing.
"""

import fcntl
import socket
import struct
from ipaddress import ip_address

from lbnode.net import rtnetlink

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_F_FIB_MATCH = 0x2000  # the entry itself, which names the device; a look-up of an own address says lo
RTA_DST, RTA_OIF = 1, 4
RTN_LOCAL = 2
SIOCGIFFLAGS = 0x8913
IFREQ = struct.Struct("16sH22x")
IFF_RUNNING = 0x40  # up, and with a carrier (netdevice(7))
BODY = struct.Struct("=BBBBBBBBI")  # struct rtmsg
TRUSTED_S = 0.1


class Links:
    """Answers from the kernel, each good for TRUSTED_S, because many probes fail together."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str]] = {}

    def lost(self, source: str, now: float) -> str:
        """The device of this own address, if nothing can leave by it; else, and when that cannot be told, nothing."""
        until, device = self._known.get(source, (0.0, ""))
        if now >= until:
            device = lost(source)
            self._known[source] = (now + TRUSTED_S, device)
        return device


def lost(source: str) -> str:
    try:
        device = _device(source)
        return "" if not device or _runs(device) else device
    except OSError:
        return ""


def _device(address: str) -> str:
    """The device that holds an own address; nothing for another's."""
    wanted = ip_address(address)
    family = socket.AF_INET if wanted.version == 4 else socket.AF_INET6
    body = BODY.pack(family, wanted.max_prefixlen, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    body += rtnetlink.attribute(RTA_DST, wanted.packed)
    answer = rtnetlink.ask(rtnetlink.Message(RTM_GETROUTE, 0, body), RTM_NEWROUTE)
    kind = BODY.unpack_from(answer)[7]
    index = rtnetlink.attributes(answer, BODY.size).get(RTA_OIF, b"")
    return socket.if_indextoname(rtnetlink.NUMBER.unpack(index)[0]) if kind == RTN_LOCAL and index else ""


def _runs(device: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        answer = fcntl.ioctl(channel, SIOCGIFFLAGS, IFREQ.pack(device.encode(), 0))
    return bool(IFREQ.unpack_from(answer)[1] & IFF_RUNNING)
