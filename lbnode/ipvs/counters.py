"""What IPVS has counted per virtual service since the service was made: new flows, and clients' packets and bytes."""

import sys
from collections.abc import Mapping
from typing import NamedTuple

from lbnode.errors import LbnodeError
from lbnode.ipvs import codec, rows
from lbnode.ipvs.netlink import GenericNetlink, Request, attributes
from lbnode.resources import ServiceKey

# include/uapi/linux/ip_vs.h, IPVS_SVC_ATTR_* and IPVS_STATS_ATTR_*; the second of each pair since Linux 4.1
_SERVICE, _STATS, _STATS64 = 1, 10, 12
_FLOWS, _PACKETS, _BYTES = 1, 2, 4


class Counters(NamedTuple):
    """Counted from 0 when the service is made; flows in the middle of which this node comes in count as new."""

    flows: int
    packets: int
    bytes: int


def read() -> Mapping[ServiceKey, Counters]:
    """Of every service that has a name, whoever made it. Raises Missing without IPVS, NotPermitted without
    CAP_NET_ADMIN."""
    found: dict[ServiceKey, Counters] = {}
    with GenericNetlink(codec.FAMILY) as link:
        for payload in link.dump(Request(codec.Command.GET_SERVICE)):
            key = rows.key_of(codec.decode_service(payload))
            if key is not None:
                found[key] = decode(payload)
    return found


def decode(payload: bytes) -> Counters:
    """The counters in an answer. Raises LbnodeError when there are none."""
    service = attributes(attributes(payload).get(_SERVICE, b""))
    counted = attributes(service.get(_STATS64) or service.get(_STATS) or b"")
    try:
        return Counters(*(int.from_bytes(counted[kind], sys.byteorder) for kind in (_FLOWS, _PACKETS, _BYTES)))
    except KeyError as missing:
        raise LbnodeError(f"cannot decode an IPVS counter: attribute {missing} is not there") from None
