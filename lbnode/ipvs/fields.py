"""Single values of IPVS as they stand in its netlink attributes: numbers, addresses, netmasks. PURE.

An attribute of another size than its kind has is no number with other digits, but an error.
"""

import socket
import sys
from ipaddress import IPv6Address

from lbnode.errors import LbnodeError


def exactly(found: dict[int, bytes], kind: int, size: int) -> bytes:
    """Raises LbnodeError when the attribute has another size, KeyError when it is not there."""
    value = found[kind]
    if len(value) != size:
        raise LbnodeError(f"cannot decode IPVS attribute {kind}: it has {len(value)} bytes, not {size}")
    return value


def number(found: dict[int, bytes], kind: int, size: int, absent: int | None = None) -> int:
    """`absent` is what one that is not there means, when it means something."""
    if absent is not None and kind not in found:
        return absent
    return int.from_bytes(exactly(found, kind, size), sys.byteorder)


def packed_address(text: str) -> tuple[int, bytes]:
    """Family, and the 16 bytes of union nf_inet_addr."""
    if ":" in text:
        return socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text)
    return socket.AF_INET, socket.inet_pton(socket.AF_INET, text) + bytes(12)


def address_of(family: int, packed: bytes) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, packed[:4])
    if family != socket.AF_INET6:
        raise LbnodeError(f"cannot decode an IPVS address of family {family}")
    text = socket.inet_ntop(socket.AF_INET6, packed)
    # The C library writes mapped addresses with dots, Python's canonical form has none.
    return str(IPv6Address(text)) if "." in text else text


def netmask(family: int, prefix: int) -> bytes:
    if family == socket.AF_INET6:
        return (prefix or 128).to_bytes(4, sys.byteorder)
    return (0xFFFFFFFF & (0xFFFFFFFF << (32 - (prefix or 32)))).to_bytes(4, "big")


def prefix_of(family: int, mask: bytes) -> int:
    """0 when the whole address counts; below 0 for a mask that is none: all clients in one, or with holes in it."""
    if family == socket.AF_INET6:
        bits = int.from_bytes(mask, sys.byteorder)
        return 0 if bits == 128 else bits
    bits = int.from_bytes(mask, "big").bit_count()
    if bits and mask == netmask(family, bits):
        return 0 if bits == 32 else bits
    return -1 - bits
