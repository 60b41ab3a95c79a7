"""IPVS's time-outs between their row and netlink. They belong to the network namespace, not to a service. PURE.

Sources: include/uapi/linux/ip_vs.h (IPVS_CMD_ATTR_TIMEOUT_*), net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_set_timeout).
"""

import struct

from lbnode.errors import LbnodeError
from lbnode.ipvs.codec import Command
from lbnode.ipvs.messages import Request, attribute, attributes
from lbnode.resources import IpvsTimeouts

QUERY = Request(Command.GET_CONFIG)
_TCP, _TCP_FIN, _UDP = 4, 5, 6
_U32 = struct.Struct("=I")


def request(row: IpvsTimeouts) -> Request:
    """SET_CONFIG. A time-out for which 0 is sent stays what it is."""
    values = ((_TCP, row.tcp_s), (_TCP_FIN, row.tcp_fin_s), (_UDP, row.udp_s))
    return Request(Command.SET_CONFIG, b"".join(attribute(kind, _U32.pack(value)) for kind, value in values))


def decode(payload: bytes) -> IpvsTimeouts:
    """The row in an answer to QUERY (or in a request). Raises LbnodeError when there is none."""
    found = attributes(payload)
    try:
        return IpvsTimeouts(*(_U32.unpack(found[kind])[0] for kind in (_TCP, _TCP_FIN, _UDP)))
    except KeyError as missing:
        raise LbnodeError(f"cannot decode the IPVS time-outs: attribute {missing} is not there") from None
    except struct.error as wrong:
        raise LbnodeError(f"cannot decode the IPVS time-outs: {wrong}") from None
