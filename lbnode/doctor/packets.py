"""Whether full-size packets fit into the tunnel: the MTU on an L4 node's way to its real servers, and the MSS that an
L7 node or a backend tells its clients. PURE.

    client --1500-- router --1500-- L4 ==outer headers, 20 (IPv4) or 40 (IPv6) bytes and more==> L7

A client sends segments of the MSS that the answer to its SYN carries. With 1440 (IPv4) and 1400 (IPv6) the packet is
1480 or 1460 bytes long, and 1500 with ipip around it (`lbnode.roles.mss`). Sources: RFC 8200, 5.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lbnode.doctor.finding import Finding

HEADERS = {4: 40, 6: 60}
"""IP and TCP without options."""
FULL = 1500
IPV6_LEAST = 1280

_BIND = re.compile(r"^\s*bind\s+(\S+):\d+(.*)$", re.MULTILINE)
_MSS = re.compile(r"\bmss\s+(\d+)")
_TOO_BIG = {
    4: "larger ones travel in fragments, have no second chance, and are lost where fragments are filtered",
    6: "clients are told by ICMPv6 'packet too big', and uploads stall where that is filtered",
}


@dataclass(frozen=True)
class Way:
    """How the kernel reaches an address: the device (none: no route), and the path MTU as far as it knows it."""

    address: str
    device: str = ""
    mtu: int = 0


@dataclass(frozen=True)
class Tunnel:
    """What the cluster file says of the tunnel of one family: the most bytes that it puts around a packet, the MTU on
    its way, and whether real servers tell clients an MSS that leaves room for it."""

    version: int
    outer: int
    mtu: int
    clamped: bool

    def room(self, mtu: int) -> int:
        """The largest packet that fits into the tunnel on a way of this MTU."""
        return mtu - self.outer

    def mss(self, mtu: int) -> int:
        return self.room(mtu) - HEADERS[self.version]


def ways(tunnel: Tunnel, found: Sequence[Way]) -> tuple[Finding, ...]:
    """An L4 node's ways to the real servers of one family."""
    version = tunnel.version
    label = f"mtu ipv{version}"
    lost = [way.address for way in found if not way.device]
    findings = []
    if lost:
        mend = "give this node an address in their network, or a route to them"
        findings.append(Finding(f"route ipv{version}", "fail", f"no route to {', '.join(lost)}", mend))
    narrow = min((way for way in found if way.device), key=lambda way: way.mtu, default=None)
    if narrow is None:
        return tuple(findings)
    room, needed = tunnel.room(narrow.mtu), tunnel.mtu if tunnel.clamped else FULL + tunnel.outer
    seen = f"{narrow.mtu} on {narrow.device} to {narrow.address}, {room} inside the tunnel"
    wider = f"give {narrow.device} and the network to the real servers an MTU of {needed} or more"
    if room >= FULL:
        findings.append(Finding(label, "ok", f"{seen}: full packets fit"))
    elif narrow.mtu >= needed:
        told = f"enough for the MSS of {tunnel.mss(tunnel.mtu)} that clients are told"
        findings.append(Finding(label, "ok", f"{seen}: {told}"))
    elif version == 6 and room < IPV6_LEAST:
        findings.append(Finding(label, "fail", f"{seen}: IPv6 needs {IPV6_LEAST}, IPVS sends nothing", wider))
    else:
        mend = f"{wider}; or say {_in_file(narrow.mtu)}"
        seen = f"{seen}, needs {tunnel.room(needed)}: {_TOO_BIG[version]}"
        findings.append(Finding(label, "warn", seen, mend))
    return tuple(findings)


def binds(config: str, vips: Iterable[str]) -> dict[str, int]:
    """The MSS of each VIP that a haproxy.cfg binds; 0 where a bind names none; the largest when there are several."""
    wanted = set(vips)
    found: dict[str, int] = {}
    for host, options in _BIND.findall(config):
        address = host.strip("[]")
        if address in wanted:
            named = _MSS.search(options)
            mss = int(named[1]) if named else 0
            found[address] = 0 if not mss or found.get(address) == 0 else max(mss, found.get(address, 0))
    return found


def haproxy_mss(tunnel: Tunnel, by_vip: Mapping[str, int], mtu: int) -> tuple[Finding, ...]:
    """What HAProxy's binds of one family tell clients. `mtu` is the uplink's; the kernel never tells more than that
    allows (tcp_output.c, tcp_mss_clamp: the lesser of both)."""
    most = mtu - HEADERS[tunnel.version]
    told = {vip: min(mss or most, most) for vip, mss in by_vip.items()}
    own = f"; in a haproxy.cfg.j2 of your own: `mss {tunnel.mss(mtu)}` in the bind lines"
    return _told(tunnel, told, mtu, f"say {_in_file(mtu)}{own}")


def route_mss(tunnel: Tunnel, clamps: Mapping[str, int], mtu: int, advertised: int) -> tuple[Finding, ...]:
    """What a backend that answers directly tells clients: the default route's `advmss` (0: none), else by the MTU, and
    no more than our nftables table lets through. `clamps`: that, by VIP, 0 for VIPs without."""
    mss = min(advertised or mtu, mtu - HEADERS[tunnel.version])
    return _told(tunnel, {vip: min(mss, clamp or mss) for vip, clamp in clamps.items()}, mtu, f"say {_in_file(mtu)}")


def _in_file(mtu: int) -> str:
    return f"`tunnel: {{mtu: {mtu}, clamp_mss: true}}` in the cluster file"


def _told(tunnel: Tunnel, told: Mapping[str, int], mtu: int, mend: str) -> tuple[Finding, ...]:
    version, label, limit = tunnel.version, f"mss ipv{tunnel.version}", tunnel.mss(mtu)
    if not told:
        return ()
    # However much they are told, clients behind an MTU of 1500 send no larger packets.
    large = {vip: mss for vip, mss in told.items() if min(mss + HEADERS[version], FULL) > tunnel.room(mtu)}
    if not large:
        return (Finding(label, "ok", f"{max(told.values())} told to clients, up to {limit} fits into the tunnel"),)
    words = ", ".join(f"{mss} at {vip}" for vip, mss in large.items())
    seen = f"{words} told to clients, {limit} fits into the tunnel at MTU {mtu}: {_TOO_BIG[version]}"
    return (Finding(label, "warn", seen, mend),)
