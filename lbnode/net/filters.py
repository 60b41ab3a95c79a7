"""The classifier's filter on devices (tc, clsact ingress), by rtnetlink. Ours by its place and its name; all others are
left alone.

It stands behind other people's filters of lower priority numbers: what they drop never comes to it, and what it does
not send on it hands to the next (TC_ACT_UNSPEC). A queueing discipline `clsact` is made where there is neither that nor
`ingress`, and goes when the last filter on it has gone.

Sources: tc-bpf(8), net/sched/{cls_api,cls_bpf,sch_ingress}.c, include/uapi/linux/{rtnetlink,pkt_cls,pkt_sched}.h.
"""

import errno
import os
import socket
import struct
from dataclasses import dataclass

from lbnode.net import addresses, rtnetlink
from lbnode.net.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, attribute, number

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWQDISC, RTM_DELQDISC = 36, 37
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
IFLA_IFNAME, TCA_KIND, TCA_OPTIONS = 3, 1, 2
BPF_FD, BPF_NAME, BPF_FLAGS, BPF_ID = 6, 7, 8, 11
DIRECT_ACTION = 1
CLSACT, INGRESS, EGRESS = 0xFFFFFFF1, 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_...)
QDISC = 0xFFFF0000
PRIORITY, HANDLE = 0x6C62, 1
NAME = "lbnode-second-chance"
ARPHRD_ETHER = 1

_TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, device, handle, parent, priority and protocol
_IFINFO = struct.Struct("=BxHiII")
_PLACE = PRIORITY << 16 | socket.htons(0x0003)  # ETH_P_ALL


@dataclass(frozen=True)
class Device:
    """A device that can carry the filter: one of Ethernet frames."""

    index: int
    name: str


@dataclass(frozen=True)
class Filter:
    """One of ours: on which device, and the number of its program. A `foreign` one stands in our place."""

    device: Device
    program: int
    foreign: bool = False


def devices() -> dict[str, Device]:
    """All Ethernet devices by name. Raises OSError, NotReady."""
    found = {}
    for payload in rtnetlink.dump(RTM_GETLINK, bytes(_IFINFO.size), RTM_NEWLINK, "devices"):
        _, kind, index, _, _ = _IFINFO.unpack_from(payload)
        if kind == ARPHRD_ETHER:
            name = rtnetlink.attributes(payload, _IFINFO.size)[IFLA_IFNAME].rstrip(b"\0").decode()
            found[name] = Device(index, name)
    return found


def carriers(own: frozenset[str]) -> tuple[str, ...]:
    """The Ethernet devices that hold any of these addresses, sorted. Raises OSError, NotReady."""
    names = {device.index: device.name for device in devices().values()}
    return tuple(sorted({names[one.index] for one in addresses.dump() if one.address in own and one.index in names}))


def dump() -> list[Filter]:
    """Our filters, and what stands in their place, on all devices. Raises OSError, NotReady."""
    return [one for device in devices().values() for one in _on(device, INGRESS) if one is not None]


def attach(device: Device, program: int) -> None:
    """Puts the filter there, or the program (a descriptor) into the one that is there. Raises OSError."""
    kind = attribute(TCA_KIND, b"clsact\0")
    body = _TCMSG.pack(0, device.index, QDISC, CLSACT, 0) + kind
    made = _exchange(Message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body), errno.EEXIST)
    options = number(BPF_FD, program) + attribute(BPF_NAME, NAME.encode() + b"\0") + number(BPF_FLAGS, DIRECT_ACTION)
    body = _TCMSG.pack(0, device.index, HANDLE, INGRESS, _PLACE)
    body += attribute(TCA_KIND, b"bpf\0") + attribute(TCA_OPTIONS, options)
    try:
        _exchange(Message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, body))
    except OSError:
        if made:
            _drop_qdisc(device)
        raise


def detach(device: Device) -> None:
    """Takes the filter away, and the queueing discipline when nobody else uses it. Raises OSError."""
    body = _TCMSG.pack(0, device.index, HANDLE, INGRESS, _PLACE) + attribute(TCA_KIND, b"bpf\0")
    _exchange(Message(RTM_DELTFILTER, 0, body), errno.ENOENT)
    if not _on(device, INGRESS) and not _on(device, EGRESS):
        _drop_qdisc(device)


def _drop_qdisc(device: Device) -> None:
    body = _TCMSG.pack(0, device.index, QDISC, CLSACT, 0) + attribute(TCA_KIND, b"clsact\0")
    _exchange(Message(RTM_DELQDISC, 0, body), errno.ENOENT, errno.EINVAL)  # EINVAL: it is `ingress`


def _on(device: Device, parent: int) -> list[Filter | None]:
    """All filters there; None for each that is not in our place."""
    found: list[Filter | None] = []
    body = _TCMSG.pack(0, device.index, 0, parent, 0)
    for payload in rtnetlink.dump(RTM_GETTFILTER, body, RTM_NEWTFILTER, "filters"):
        _, _, handle, _, place = _TCMSG.unpack_from(payload)
        told = rtnetlink.attributes(payload, _TCMSG.size)
        if not handle or TCA_OPTIONS not in told:  # the head of a priority's filters
            continue
        if place >> 16 != PRIORITY or parent != INGRESS:
            found.append(None)
            continue
        options = rtnetlink.attributes(memoryview(told[TCA_OPTIONS]), 0)
        name = options.get(BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
        program = int.from_bytes(options.get(BPF_ID, b"\0\0\0\0"), "little")
        found.append(Filter(device, program, foreign=name != NAME or handle != HANDLE))
    return found


def _exchange(message: Message, *allowed: int) -> bool:
    """Whether it was done; an `allowed` errno says that it was not needed. Raises OSError."""
    (error,) = rtnetlink.exchange([message])
    if error and error not in allowed:
        raise OSError(error, os.strerror(error))
    return not error
