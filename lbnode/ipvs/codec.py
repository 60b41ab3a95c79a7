"""IPVS services and destinations as values, and as the attributes of its netlink family.

The kernel's side is include/uapi/linux/ip_vs.h and net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_genl_*). A service or a
destination is encoded by one struct, since the layout of what we send is ours to fix; what the kernel sends is decoded
attribute by attribute, since the layout is the kernel's. Ports and tunnel ports are big-endian on the wire, everything
else is in the machine's order, with one trap: the netmask is a mask in network order for IPv4, and a prefix length in
the machine's order for IPv6.
"""

import socket
import struct
import sys
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from lbnode.errors import LbnodeError
from lbnode.ipvs.fields import address_of, exactly, netmask, number, packed_address, prefix_of
from lbnode.ipvs.messages import Request, attribute, attributes

FAMILY = "IPVS"

HASHED = 0x02
"""A service flag that the kernel sets for itself: never sent, masked off when read."""


class Command(IntEnum):
    """ip_vs.h, IPVS_CMD_*."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    SET_CONFIG = 12
    GET_CONFIG = 13


class Forwarding(IntEnum):
    """ip_vs.h, IP_VS_CONN_F_*; the last two are never chosen by people."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3
    BYPASS = 4


class Tunnel(IntEnum):
    """ip_vs.h, IP_VS_CONN_F_TUNNEL_TYPE_*."""

    IPIP = 0
    GUE = 1
    GRE = 2


class Service(NamedTuple):
    """A virtual service: address, protocol and port, or a firewall mark (then `address` is empty, the rest 0).

    `flags` as in ip_vs.h (IP_VS_SVC_F_*), without HASHED. `timeout` in seconds and `prefix` (bits of the client address
    that count, 0 for all of them) belong to persistence.
    """

    address: str
    protocol: int
    port: int
    scheduler: str = "mh"
    flags: int = 0
    timeout: int = 0
    prefix: int = 0
    fwmark: int = 0
    family: int = socket.AF_INET


class Destination(NamedTuple):
    """A real server's row under a service. The thresholds are connection counts, 0 for none."""

    address: str
    port: int
    forwarding: int = Forwarding.TUNNEL
    weight: int = 1
    upper: int = 0
    lower: int = 0
    tunnel: int = Tunnel.IPIP
    tunnel_port: int = 0
    tunnel_flags: int = 0


_NESTED = 0x8000
_CMD_SERVICE, _CMD_DEST = 1, 2
_AF, _PROTOCOL, _ADDR, _PORT, _FWMARK, _SCHED, _FLAGS, _TIMEOUT, _NETMASK = range(1, 10)
_D_ADDR, _D_PORT, _D_FWD, _D_WEIGHT, _D_UPPER, _D_LOWER = range(1, 7)
_D_ACTIVE, _D_INACTIVE, _D_PERSISTENT = 7, 8, 9
_D_FAMILY, _D_TUN_TYPE, _D_TUN_PORT, _D_TUN_FLAGS = 11, 13, 14, 15

_NEST = struct.Struct("=HH")
_SERVICE_KEY = struct.Struct("=HHH2x HHH2x HH16s HH2s2x")
_MARK_KEY = struct.Struct("=HHH2x HHI")
_SERVICE_SETTINGS = struct.Struct("=HHII HHI HH4s")
_DEST_KEY = struct.Struct("=HH16s HH2s2x HHH2x")
_DEST_SETTINGS = struct.Struct("=HHI HHI HHI HHI HHB3x HH2s2x HHH2x")


def service_request(command: Command, service: Service) -> Request:
    """NEW_SERVICE and SET_SERVICE with all settings; DEL_SERVICE and GET_SERVICE with the key alone."""
    body = _service_key(service)
    if command in (Command.NEW_SERVICE, Command.SET_SERVICE):
        # The kernel takes the flags under a mask: all of ours, and HASHED stays as it is.
        body += attribute(_SCHED, service.scheduler.encode() + b"\0") + _SERVICE_SETTINGS.pack(
            *(12, _FLAGS, service.flags & ~HASHED, 0xFFFFFFFF ^ HASHED),
            *(8, _TIMEOUT, service.timeout),
            *(8, _NETMASK, netmask(service.family, service.prefix)),
        )
    return Request(command, _nest(_CMD_SERVICE, body))


def destination_request(command: Command, service: Service, destination: Destination) -> Request:
    """NEW_DEST and SET_DEST with all settings; DEL_DEST with the key alone. Of `service` only the key counts."""
    whole = command in (Command.NEW_DEST, Command.SET_DEST)
    return Request(command, _service_part(service) + _destination_part(destination, whole))


def destinations_query(service: Service) -> Request:
    """For a dump of the service's destinations, which comes newest first."""
    return Request(Command.GET_DEST, _service_part(service))


def decode_service(payload: bytes) -> Service:
    """The service in an answer (or a request). Raises LbnodeError when there is none, or a broken one."""
    try:
        return _service(attributes(attributes(payload)[_CMD_SERVICE], unique=True))
    except KeyError as missing:
        raise LbnodeError(f"cannot decode an IPVS service: attribute {missing} is not there") from None


def decode_destination(payload: bytes) -> Destination:
    """The destination in an answer (or a request). Raises LbnodeError when there is none, or a broken one."""
    try:
        found = attributes(attributes(payload)[_CMD_DEST], unique=True)
        return Destination(
            address_of(number(found, _D_FAMILY, 2), exactly(found, _D_ADDR, 16)),
            int.from_bytes(exactly(found, _D_PORT, 2), "big"),
            number(found, _D_FWD, 4),
            number(found, _D_WEIGHT, 4),
            number(found, _D_UPPER, 4),
            number(found, _D_LOWER, 4),
            # Absent before Linux 5.2, which knew IPIP alone.
            number(found, _D_TUN_TYPE, 1, absent=Tunnel.IPIP),
            int.from_bytes(exactly(found, _D_TUN_PORT, 2), "big") if _D_TUN_PORT in found else 0,
            number(found, _D_TUN_FLAGS, 2, absent=0),
        )
    except KeyError as missing:
        raise LbnodeError(f"cannot decode an IPVS destination: attribute {missing} is not there") from None


def decode_connections(payload: bytes) -> int:
    """How many entries the destination in an answer has in the connection table: flows that are open, flows of which a
    side has ended or that know no end (UDP), and clients with persistence."""
    try:
        found = attributes(attributes(payload)[_CMD_DEST], unique=True)
        return sum(number(found, kind, 4) for kind in (_D_ACTIVE, _D_INACTIVE, _D_PERSISTENT))
    except KeyError as missing:
        raise LbnodeError(f"cannot decode an IPVS destination: attribute {missing} is not there") from None


# Remembered, because the same real servers stand under many services, and services have many of them.
@lru_cache(maxsize=8192)
def _service_part(service: Service) -> bytes:
    """The attribute that names a service."""
    return _nest(_CMD_SERVICE, _service_key(service))


@lru_cache(maxsize=8192)
def _destination_part(destination: Destination, whole: bool) -> bytes:
    """The attribute of a destination, with its settings or with its key alone."""
    family, packed = packed_address(destination.address)
    port = destination.port.to_bytes(2, "big")
    body = _DEST_KEY.pack(20, _D_ADDR, packed, 6, _D_PORT, port, 6, _D_FAMILY, family)
    if whole:
        body += _DEST_SETTINGS.pack(
            *(8, _D_FWD, destination.forwarding),
            *(8, _D_WEIGHT, destination.weight),
            *(8, _D_UPPER, destination.upper),
            *(8, _D_LOWER, destination.lower),
            *(5, _D_TUN_TYPE, destination.tunnel),
            *(6, _D_TUN_PORT, destination.tunnel_port.to_bytes(2, "big")),
            *(6, _D_TUN_FLAGS, destination.tunnel_flags),
        )
    return _nest(_CMD_DEST, body)


def _service(found: dict[int, bytes]) -> Service:
    family = number(found, _AF, 2)
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise LbnodeError(f"cannot decode an IPVS service of address family {family}")
    name, end, _ = found[_SCHED].partition(b"\0")
    if not end:
        raise LbnodeError("cannot decode an IPVS service: the name of its scheduler has no end")
    service = Service(
        address="",
        protocol=0,
        port=0,
        scheduler=name.decode("ascii", "replace"),
        flags=int.from_bytes(exactly(found, _FLAGS, 8)[:4], sys.byteorder) & ~HASHED,
        timeout=number(found, _TIMEOUT, 4),
        prefix=prefix_of(family, exactly(found, _NETMASK, 4)),
        fwmark=number(found, _FWMARK, 4, absent=0),
        family=family,
    )
    if service.fwmark:
        return service
    address, port = address_of(family, exactly(found, _ADDR, 16)), int.from_bytes(exactly(found, _PORT, 2), "big")
    return service._replace(address=address, protocol=number(found, _PROTOCOL, 2), port=port)


def _service_key(service: Service) -> bytes:
    if service.fwmark:
        return _MARK_KEY.pack(6, _AF, service.family, 8, _FWMARK, service.fwmark)
    family, packed = packed_address(service.address)
    port = service.port.to_bytes(2, "big")
    return _SERVICE_KEY.pack(6, _AF, family, 6, _PROTOCOL, service.protocol, 20, _ADDR, packed, 6, _PORT, port)


def _nest(kind: int, body: bytes) -> bytes:
    return _NEST.pack(4 + len(body), kind | _NESTED) + body
