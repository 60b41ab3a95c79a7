"""Counts the packets that come to some addresses from outside: a classic BPF program on a packet socket does it in the
kernel, and reading the socket's statistics tells how many there were, those that found no room in its queue included
(packet(7)). What a node sends itself, by the loopback device, is not counted.

It costs a copy of a byte for each packet, so it is for a while: to see the last packets of a node that leaves.
"""

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from lbnode.config.model import IPAddress
from lbnode.errors import LbnodeError

SO_ATTACH_FILTER, SOL_PACKET, PACKET_STATISTICS = 26, 263, 6  # asm-generic/socket.h, linux/socket.h, if_packet.h
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x3, 0x0800, 0x86DD
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
PROTOCOL, PACKET_TYPE, INTERFACE = 0xFFFFF000, 0xFFFFF004, 0xFFFFF008  # linux/filter.h: SKF_AD_OFF + ...
TO_THIS_HOST, LOOPBACK = 0, 1  # if_packet.h: PACKET_HOST; net/core/dev.c gives `lo` the first index
DESTINATION = {4: 16, 6: 24}
"""Where the destination stands in the network header, at which a SOCK_DGRAM socket begins."""
AT_ONCE = 40
"""Addresses per program: an IPv6 one needs eleven instructions, and what a socket may charge for its program is little
(net.core.optmem_max, 20 KiB)."""

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, how many to skip when true, when false, and the operand."""


class Arrivals:
    """`count` is the number of packets since it was made. Close it when done."""

    def __init__(self, addresses: Iterable[IPAddress]) -> None:
        """Raises LbnodeError when the kernel does not let us."""
        wanted = sorted(addresses, key=str)
        self._sockets: list[socket.socket] = []
        self._counted = 0
        try:
            for start in range(0, len(wanted), AT_ONCE):
                self._sockets.append(_listening(program(wanted[start : start + AT_ONCE])))
        except OSError as error:
            self.close()
            raise LbnodeError(f"cannot count packets: {error.strerror}") from error

    @property
    def count(self) -> int:
        # Reading sets the kernel's counter back, so they are summed up here.
        self._counted += sum(map(_taken, self._sockets))
        return self._counted

    def close(self) -> None:
        for made in self._sockets:
            made.close()


def _listening(instructions: Sequence[Instruction]) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    try:
        text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in instructions))
        attached = struct.pack("HL", len(instructions), ctypes.addressof(text))
        made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
        # Nobody reads them: the queue may be as short as can be.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        _taken(made)  # what came before the program was there
    except OSError:
        made.close()
        raise
    return made


def _taken(made: socket.socket) -> int:
    packets, _ = struct.unpack("=II", made.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return int(packets)


def program(addresses: Iterable[IPAddress]) -> list[Instruction]:
    """Takes one byte of packets to this host, to one of these addresses, that did not come by loopback; nothing of
    others."""
    addresses = tuple(addresses)
    code: list[Instruction] = [
        (LOAD_WORD, 0, 0, PACKET_TYPE),
        (JUMP_EQUAL, 1, 0, TO_THIS_HOST),
        (RETURN, 0, 0, 0),
        (LOAD_WORD, 0, 0, INTERFACE),
        (JUMP_EQUAL, 0, 1, LOOPBACK),
        (RETURN, 0, 0, 0),
    ]
    for version, protocol in ((4, ETH_P_IP), (6, ETH_P_IPV6)):
        # A conditional jump skips 255 instructions at most, so each address has its own end.
        for address in addresses:
            if address.version == version:
                code += _to_one(address.packed, DESTINATION[version], protocol)
    return [*code, (RETURN, 0, 0, 0)]


def _to_one(packed: bytes, start: int, protocol: int) -> Iterator[Instruction]:
    words = [(start + at, int.from_bytes(packed[at : at + 4], "big")) for at in range(0, len(packed), 4)]
    tests = [(PROTOCOL, protocol), *words]
    for number, (offset, value) in enumerate(tests):
        yield (LOAD_WORD, 0, 0, offset)
        yield (JUMP_EQUAL, 0, 2 * (len(tests) - number) - 1, value)
    yield (RETURN, 0, 0, 1)
