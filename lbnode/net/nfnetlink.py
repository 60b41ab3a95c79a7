"""Questions to nf_tables by hand-packed netlink: has the ruleset changed, is a table there, could one be made?

They take a tenth of a millisecond and no program, which matters to an agent that asks every few seconds and, on most
nodes, wants no table at all. Sources: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h.
"""

import errno
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import NamedTuple

from lbnode.errors import NotReady
from lbnode.net.rtnetlink import HEADER, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR, attribute, attributes

NETLINK_NETFILTER = 12
SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
NEWTABLE, GETTABLE, GETGEN = 0, 1, 16
BATCH_BEGIN = 0x10  # NFNL_MSG_BATCH_BEGIN
FAMILY = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
NFPROTO_INET = 1
NFTA_TABLE_NAME = NFTA_GEN_ID = 1
# No nfnetlink at all; no nf_tables behind it (net/netfilter/nfnetlink.c); no tables of this family (nf_tables_api.c).
NO_NF_TABLES = (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
DEADLINE_S = 10.0


class Generation(NamedTuple):
    """Which network namespace (0 before Linux 5.14), and a number that every change of any table in it raises."""

    namespace: int
    number: int


def generation() -> Generation:
    """Of the calling thread's network namespace (nf_tables_commit() counts).

    Raises OSError: EPERM, one of NO_NF_TABLES. Raises NotReady.
    """
    namespace, values = _ask(GETGEN, b"")
    return Generation(namespace, int.from_bytes(values[NFTA_GEN_ID], "big"))


def has_table(name: str) -> bool:
    """Whether there is such a table of family inet. Raises as `generation` does."""
    try:
        _ask(GETTABLE, attribute(NFTA_TABLE_NAME, name.encode() + b"\0"))
    except FileNotFoundError:
        return False
    return True


def try_table(name: str) -> None:
    """Whether such a table could be made: a transaction that is never ended, so that nothing comes of it.

    Raises as `generation` does.
    """
    begin = FAMILY.pack(0, 0, socket.htons(SUBSYSTEM >> 8))
    table = FAMILY.pack(NFPROTO_INET, 0, 0) + attribute(NFTA_TABLE_NAME, name.encode() + b"\0")
    _exchange(_pack(BATCH_BEGIN, begin) + _pack(SUBSYSTEM | NEWTABLE, table, NLM_F_CREATE | NLM_F_ACK))


def _ask(kind: int, body: bytes) -> tuple[int, dict[int, bytes]]:
    """Where it was asked (0: unknown), and the attributes of the answer."""
    namespace, answer = _exchange(_pack(SUBSYSTEM | kind, FAMILY.pack(NFPROTO_INET, 0, 0) + body))
    return namespace, attributes(memoryview(answer), HEADER.size + FAMILY.size)


def _pack(kind: int, body: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body


def _exchange(request: bytes) -> tuple[int, bytes]:
    """The namespace and the one answer. Raises OSError for one that is an error."""
    namespace = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as channel:
        channel.settimeout(DEADLINE_S)
        with suppress(OSError):
            namespace = int.from_bytes(channel.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        try:
            channel.send(request)
            answer = channel.recv(1 << 16)
        except TimeoutError as error:
            raise NotReady("cannot ask nf_tables: the kernel does not answer") from error
    code = -struct.unpack_from("=i", answer, HEADER.size)[0] if HEADER.unpack_from(answer)[1] == NLMSG_ERROR else 0
    if code:
        raise OSError(code, os.strerror(code))
    return namespace, answer
