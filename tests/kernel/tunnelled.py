"""Packets as they come to a real server, byte by byte: Ethernet, the tunnel's header, a client's packet."""

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, ICMP, ICMPV6 = 6, 1, 58
ETHERNET = 14


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def ip(source: str, target: str, protocol: int, body: bytes, ttl: int = 60, fragment: int = 0x4000) -> bytes:
    """A packet of the addresses' family, without options."""
    one, other = ip_address(source).packed, ip_address(target).packed
    if len(one) == 16:
        return struct.pack(">IHBB", 6 << 28, len(body), protocol, ttl) + one + other + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 7, fragment, ttl, protocol, 0) + one + other
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def tcp(source: int, target: int, flags: int = ACK, acknowledged: int = 1, body: bytes = b"") -> bytes:
    """The first byte after the SYN."""
    number = 1000 if flags & SYN else 1001
    return struct.pack(">HHIIBBHHH", source, target, number, acknowledged, 5 << 4, flags, 8192, 0, 0) + body


def error(packet: bytes, kind: int) -> bytes:
    """The ICMP message about a packet: its IP header and 8 bytes more."""
    head = 40 if packet[0] >> 4 == 6 else 20
    return struct.pack(">BBHI", kind, 4 if kind == 3 else 0, 0, 1300) + packet[: head + 8]


@dataclass(frozen=True)
class Flow:
    """A client's packet in a tunnel packet."""

    sender: str
    real_server: str
    vip: str
    client: str
    port: int
    vip_port: int = 80
    flags: int = ACK
    ttl: int = 64

    @property
    def six(self) -> bool:
        return ":" in self.vip

    def but(self, **changes: object) -> "Flow":
        return replace(self, **changes)  # type: ignore[arg-type]

    def wrapped(self, inner: bytes) -> bytes:
        """In the tunnel, and in a frame."""
        outer = ip(self.sender, self.real_server, 41 if self.six else 4, inner, self.ttl)
        return bytes(12) + (b"\x86\xdd" if self.six else b"\x08\x00") + outer

    def packet(self, body: bytes = b"", acknowledged: int = 1) -> bytes:
        segment = tcp(self.port, self.vip_port, self.flags, acknowledged, body)
        return self.wrapped(ip(self.client, self.vip, TCP, segment))

    def error(self, kind: int = 0) -> bytes:
        """A router's word about a packet of the VIP to the client."""
        about = ip(self.vip, self.client, TCP, tcp(self.vip_port, self.port))
        message = error(about, kind or (2 if self.six else 3))
        router = "2001:db8:9::1" if self.six else "203.0.113.9"
        return self.wrapped(ip(router, self.vip, ICMPV6 if self.six else ICMP, message))


def outer(packet: bytes) -> tuple[str, str, int]:
    """Source, target and TTL of the tunnel's header. The checksum must be right."""
    if packet[ETHERNET] >> 4 == 6:
        source, target = packet[22:38], packet[38:54]
        return str(ip_address(source)), str(ip_address(target)), packet[21]
    head = packet[ETHERNET : ETHERNET + 20]
    assert checksum(head) == 0
    return str(ip_address(head[12:16])), str(ip_address(head[16:20])), head[8]


def inner(packet: bytes) -> bytes:
    return packet[ETHERNET + (40 if packet[ETHERNET] >> 4 == 6 else 20) :]
