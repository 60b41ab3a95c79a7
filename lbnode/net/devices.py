"""Devices by pyroute2: the dummy that carries VIPs, the tunnels that decapsulate, the VRF of announced routes.

A fresh netlink socket for every call: an IPRoute latches an error it once had and then answers wrongly, and it is
bound to the thread that made it, while the agent's passes run in whichever thread is free. Opening one costs a few
milliseconds and devices are few. pyroute2 is imported here only, and only when used: it takes 0.1 s.

Sources: net/ipv4/{ipip,ip_gre}.c, net/ipv6/{ip6_tunnel,ip6_gre}.c, include/uapi/linux/if_tunnel.h.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from lbnode.resources import Link

IFF_UP = 1
IP6_TNL_F_IGN_ENCAP_LIMIT = 1  # otherwise 8 bytes of destination options in each packet (RFC 2473, 4.1.1)
IPPROTO_ANY, IPPROTO_IPIP = 0, 4
GRE_CSUM, GRE_KEY, GRE_SEQ = 0x8000, 0x2000, 0x1000
TUNNELS = ("ipip", "ip6tnl", "gre", "ip6gre")
SKIP_STATISTICS = 8  # rtnetlink.h, RTEXT_FILTER_SKIP_STATS

Attributes: TypeAlias = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` is the kernel's name of its type, empty when it is not virtual.

    `local` is a tunnel's outer address; what keeps it from taking packets from any sender is told behind it, as in
    `192.0.2.1 remote 192.0.2.9`. `checksum`: GRE packets must have one. `table`: the routing table of a vrf.
    """

    index: int
    name: str
    kind: str = ""
    local: str = ""
    up: bool = False
    checksum: bool = False
    table: int = 0


def dump() -> list[Device]:
    """All devices of this network namespace. Raises OSError."""
    with _route() as route:
        return [_device(message) for message in route.link("dump", ext_mask=SKIP_STATISTICS)]


def create(link: Link) -> None:
    """Makes the device. Raises OSError: EOPNOTSUPP for a type the kernel has not, EEXIST for a name or tunnel taken."""
    with _route() as route:
        route.link("add", ifname=link.name, kind=link.type, flags=int(link.up), change=IFF_UP, **_settings(link))


def change(device: Device, link: Link) -> None:
    """Gives a device of the same type other settings, in place. Raises OSError: EINVAL or EOPNOTSUPP when the kernel
    cannot."""
    with _route() as route:
        if (device.local, device.checksum, device.table) != (link.local, link.checksum, link.table):
            route.link("set", index=device.index, kind=link.type, **_settings(link))
        if device.up != link.up:
            route.link("set", index=device.index, flags=int(link.up), change=IFF_UP)


def remove(device: Device) -> None:
    """Raises OSError."""
    with _route() as route:
        route.link("del", index=device.index)


def _settings(link: Link) -> Attributes:
    """The remote end is any: the node decapsulates what every L4 node sends. All but ipip take both families."""
    if link.type == "ipip":
        return {"ipip_local": link.local or "0.0.0.0", "ipip_proto": IPPROTO_IPIP}  # noqa: S104 - means any
    if link.type == "ip6tnl":
        return {
            "ip6tnl_local": link.local or "::",
            "ip6tnl_proto": IPPROTO_ANY,
            "ip6tnl_flags": IP6_TNL_F_IGN_ENCAP_LIMIT,
        }
    flags = GRE_CSUM if link.checksum else 0
    if link.type == "gre":
        return {"gre_local": link.local or "0.0.0.0", "gre_iflags": flags}  # noqa: S104 - means any
    if link.type == "ip6gre":  # pyroute2 packs these flags in the host's order
        return {
            "ip6gre_local": link.local or "::",
            "ip6gre_iflags": socket.htons(flags),
            "ip6gre_flags": IP6_TNL_F_IGN_ENCAP_LIMIT,
        }
    return {"vrf_table": link.table} if link.type == "vrf" else {}


@contextmanager
def _route() -> Iterator[Any]:
    """An IPRoute whose errors are OSErrors, as those of every other system call."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error


def _device(message: Any) -> Device:
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    local, checksum = "", False
    data = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    if kind in TUNNELS:
        flags = _gre_flags(data, kind)
        local, checksum = _tunnel(data, kind, flags), bool(flags & GRE_CSUM)
    return Device(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        local=local,
        up=bool(message["flags"] & IFF_UP),
        checksum=checksum,
        table=int(data.get_attr("IFLA_VRF_TABLE")) if kind == "vrf" else 0,
    )


def _gre_flags(data: Any, kind: str) -> int:
    if kind == "gre":
        return int(data.get_attr("IFLA_GRE_IFLAGS"))
    return socket.ntohs(data.get_attr("IFLA_IP6GRE_IFLAGS")) if kind == "ip6gre" else 0


def _tunnel(data: Any, kind: str, gre_flags: int) -> str:
    """The outer address, and behind it every setting that narrows what the tunnel takes."""

    def attribute(name: str) -> Any:
        return data.get_attr(f"IFLA_{kind.upper()}_{name}")

    words = [_address(attribute("LOCAL"))]
    if remote := _address(attribute("REMOTE")):
        words.append(f"remote {remote}")
    if device := attribute("LINK"):
        words.append(f"dev {device}")
    if attribute("COLLECT_METADATA") is not None:
        words.append("external")
    protocol = attribute("PROTO")
    if protocol not in {"ipip": (IPPROTO_ANY, IPPROTO_IPIP), "ip6tnl": (IPPROTO_ANY,)}.get(kind, (protocol,)):
        words.append(f"protocol {protocol}")
    words += [name for name, flag in (("key", GRE_KEY), ("seq", GRE_SEQ)) if gre_flags & flag]
    return " ".join(words).strip()


def _address(text: str | None) -> str:
    address = ip_address(text) if text else None
    return str(address) if address and not address.is_unspecified else ""
