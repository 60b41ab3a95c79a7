"""Between the resource rows of lbnode and the kernel's records of them. PURE.

A row says what a role decides; a record says all that the kernel keeps. What a record holds and no row can say (a port
other than the service's without masquerading, a forwarding method that people cannot choose) is told apart here, so
that it is reported and left alone rather than mistaken for ours.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, cast

from lbnode.errors import LbnodeError
from lbnode.ipvs import codec
from lbnode.ipvs.codec import Forwarding, Tunnel
from lbnode.resources import Destination, DestinationOrder, Protocol, Row, ServiceKey, VirtualService

ForwardingName = Literal["tunnel", "route", "masquerade"]
TunnelName = Literal["ipip", "gue", "gre"]
ChecksumName = Literal["none", "full", "remote"]

PROTOCOLS: dict[str, int] = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_PROTOCOL_NAMES: dict[int, Protocol] = {
    socket.IPPROTO_TCP: "tcp",
    socket.IPPROTO_UDP: "udp",
    socket.IPPROTO_SCTP: "sctp",
}
_FLAGS = {0x01: "persistent", 0x04: "one-packet"}
_SCHEDULER_FLAGS = {0x08: "fallback", 0x10: "port", 0x20: "flag-3"}
_FORWARDING: dict[int, ForwardingName] = {
    Forwarding.TUNNEL: "tunnel",
    Forwarding.ROUTE: "route",
    Forwarding.MASQUERADE: "masquerade",
}
_TUNNELS: dict[int, TunnelName] = {Tunnel.IPIP: "ipip", Tunnel.GUE: "gue", Tunnel.GRE: "gre"}
# include/uapi/linux/ip_vs.h, IP_VS_TUNNEL_ENCAP_FLAG_*
_CHECKSUMS: dict[int, ChecksumName] = {0: "none", 1: "full", 2: "remote"}
_FORWARDING_NUMBERS = {name: number for number, name in _FORWARDING.items()}
_TUNNEL_NUMBERS = {name: number for number, name in _TUNNELS.items()}
_CHECKSUM_NUMBERS = {name: number for number, name in _CHECKSUMS.items()}


def key_of(service: codec.Service) -> ServiceKey | None:
    """None for a service that no row can name: of another protocol."""
    if service.fwmark:
        return ServiceKey.of_mark(service.fwmark, 6 if service.family == socket.AF_INET6 else 4)
    name = _PROTOCOL_NAMES.get(service.protocol)
    return ServiceKey(service.address, name, service.port) if name else None


@lru_cache(maxsize=8192)
def record_of_key(key: ServiceKey) -> codec.Service:
    """The record of a service with its key alone, as deletes and the rows under it need it."""
    family = socket.AF_INET6 if ":" in key.vip else socket.AF_INET
    if key.protocol == "fwmark":
        return codec.Service("", 0, 0, fwmark=key.port, family=family)
    return codec.Service(key.vip, PROTOCOLS[key.protocol], key.port, family=family)


def record_of_service(row: VirtualService) -> codec.Service:
    """Raises LbnodeError on a flag that the scheduler does not have."""
    numbers = {name: number for number, name in _flag_names(row.scheduler).items()}
    if unknown := [name for name in row.flags if name not in numbers]:
        raise LbnodeError(f"cannot use flag {unknown[0]!r} with scheduler {row.scheduler}: it has {', '.join(numbers)}")
    flags = sum(numbers[name] for name in set(row.flags))
    return record_of_key(row.service)._replace(
        scheduler=row.scheduler, flags=flags, timeout=row.timeout_s, prefix=row.prefix
    )


def record_of_destination(row: Destination, weight: int) -> codec.Destination:
    """With another weight than the row's, where the row is on its way there."""
    settings = (row.address, row.real_port, _FORWARDING_NUMBERS[row.forwarding], weight, row.upper, row.lower)
    if row.forwarding != "tunnel":
        return codec.Destination(*settings)
    checksum = _CHECKSUM_NUMBERS[row.tunnel_checksum]
    return codec.Destination(*settings, _TUNNEL_NUMBERS[row.tunnel], row.tunnel_port, checksum)


def is_ours(key: ServiceKey, record: codec.Destination) -> bool:
    """Whether a row can express the record: a forwarding method and a tunnel with a name, and the service's own port
    unless it masquerades, for only then is the port of any use."""
    if record.forwarding == Forwarding.MASQUERADE:
        return True
    named = record.forwarding in _FORWARDING and record.tunnel in _TUNNELS
    return named and record.port == key.real_port


def rows_of(key: ServiceKey, service: codec.Service, newest_first: Iterable[codec.Destination]) -> list[Row]:
    """The rows of one service of ours, from the kernel's records."""
    names = _flag_names(service.scheduler)
    bits = [1 << bit for bit in range(32) if service.flags >> bit & 1]
    flags = tuple(sorted(names.get(bit, f"{bit:#x}") for bit in bits))
    oldest_first = [record for record in newest_first if is_ours(key, record)][::-1]
    destinations = [destination(key, serial, record) for serial, record in enumerate(oldest_first)]
    return [
        VirtualService(key, service.scheduler, flags, service.timeout, service.prefix),
        *destinations,
        DestinationOrder(key, tuple([row.name for row in destinations])),
    ]


def name_of(key: ServiceKey, record: codec.Destination) -> str:
    """What the record's row is called in the order of its service (`Destination.name`)."""
    return record.address if record.port == key.real_port else _host(record)


def foreign_service(service: codec.Service, destinations: int) -> str:
    """One line: `198.51.100.9:80/tcp (rr, 2 destinations)`."""
    name = key_of(service) or f"{service.address} protocol {service.protocol} port {service.port}"
    return f"{name} ({service.scheduler}, {destinations} destination{'' if destinations == 1 else 's'})"


def foreign_destination(key: ServiceKey, record: codec.Destination) -> str:
    """One line: `198.51.100.1:80/tcp -> 192.0.2.7:8080 (not the service's port)`."""
    why = "not the service's port" if record.port != key.real_port else f"forwarding method {record.forwarding}"
    return f"{key} -> {_host(record)} ({why})"


def destination(key: ServiceKey, serial: int, record: codec.Destination) -> Destination:
    """The row of a record that is ours; `serial` says its place."""
    port = 0 if record.port == key.real_port else record.port
    forwarding = _FORWARDING[record.forwarding]
    tunnel: TunnelName = _TUNNELS[record.tunnel] if forwarding == "tunnel" else "ipip"
    checksum: ChecksumName = "none"
    if tunnel != "ipip":
        # Flags of two kinds at once have no name: shown as they are, they differ from all that can be wanted.
        checksum = _CHECKSUMS.get(record.tunnel_flags) or cast("ChecksumName", f"{record.tunnel_flags:#x}")
    return Destination(
        key,
        record.address,
        record.weight,
        record.weight,
        serial,
        forwarding,
        tunnel,
        port,
        record.tunnel_port if tunnel == "gue" else 0,
        checksum,
        record.upper,
        record.lower,
    )


def _host(record: codec.Destination) -> str:
    return f"[{record.address}]:{record.port}" if ":" in record.address else f"{record.address}:{record.port}"


def _flag_names(scheduler: str) -> dict[int, str]:
    """mh and sh have two flags of their own; other schedulers have three without a name (ip_vs.h, SVC_F_SCHED1..3)."""
    own = (
        {bit: f"{scheduler}-{word}" if bit < 0x20 else word for bit, word in _SCHEDULER_FLAGS.items()}
        if scheduler in ("mh", "sh")
        else {0x08: "flag-1", 0x10: "flag-2", 0x20: "flag-3"}
    )
    return {**_FLAGS, **own}
