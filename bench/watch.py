"""Watches a node's IPVS table from outside, as cheaply as the kernel allows: the watcher shares the processor with what
is measured. The old socket options (include/uapi/linux/ip_vs.h) tell the number of destinations of all services in one
system call; netlink would need a dump of each.
"""

import ctypes
import os
import socket
import struct
from typing import Self

from bench.site import Size
from lbnode.ipvs import codec, rows
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.resources import ServiceKey

POLL_S = 0.004
DEADLINE_S = 120.0
_GET_SERVICES = 64 + 1024 + 64 + 2
_ENTRY_BYTES, _SCHEDULER, _COUNT = 104, 16, 44
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Of one node. A context manager."""

    def __init__(self, node: Node) -> None:
        self._socket = node.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        self._netlink = node.call(lambda: GenericNetlink(codec.FAMILY))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._netlink.__exit__()

    def programmed(self, size: Size) -> bool:
        """Whether all services stand, under mh, with all their destinations."""
        length = 8 + _ENTRY_BYTES * size.services
        buffer = ctypes.create_string_buffer(struct.pack("=I", size.services), length)
        given = ctypes.c_uint(length)
        if _libc.getsockopt(self._socket.fileno(), socket.IPPROTO_IP, _GET_SERVICES, buffer, ctypes.byref(given)):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot read IPVS services: {os.strerror(number)}")
        data = buffer.raw
        for at in range(8, length, _ENTRY_BYTES):
            scheduler = data[at + _SCHEDULER : at + _SCHEDULER + 3]
            (count,) = struct.unpack_from("=I", data, at + _COUNT)
            if scheduler != b"mh\0" or count != size.destinations:
                return False
        return True

    def weight(self, key: ServiceKey, address: str) -> int:
        """The weight of one destination, -1 when it is not there."""
        found = self._netlink.dump(codec.destinations_query(rows.record_of_key(key)))
        records = map(codec.decode_destination, found)
        return next((record.weight for record in records if record.address == address), -1)

    def wait_programmed(self, size: Size) -> None:
        wait_until(lambda: self.programmed(size), DEADLINE_S, f"{size} destinations", POLL_S)

    def wait_weight(self, key: ServiceKey, address: str, weight: int) -> None:
        wait_until(lambda: self.weight(key, address) == weight, DEADLINE_S, f"weight {weight}", POLL_S)
