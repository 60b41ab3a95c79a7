"""What can be seen in a node's kernel from outside: routes, IPVS tables, connections, bytes, and who sends what.

Everything is read as the kernel shows it (/proc of the node, rtnetlink, packet sockets) and not through lbnode: a
scenario judges lbnode, so it must not ask it.
"""

import ctypes
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from lbnode.lab.account import Flow
from lbnode.lab.namespaces import Node

SO_ATTACH_FILTER = 26
SOL_PACKET, PACKET_STATISTICS = 263, 6
ETH_P_ALL = 3
RTM_GETROUTE, NLM_F_DUMP, NLMSG_DONE = 26, 0x301, 3
RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 1, 5, 9, 15, 18
MAIN_TABLE = 254

PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}
Service = tuple[str, int]
"""A VIP and a port."""


class Routes:
    """A router's main tables, read over one netlink socket that is kept: a look costs well under a millisecond."""

    def __init__(self, node: Node) -> None:
        self._socket = node.call(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        self._socket.settimeout(5)

    def gateways(self, version: int) -> dict[str, frozenset[str]]:
        """Host routes of one family: address -> next hops."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        body = struct.pack("BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_DUMP, 1, 0) + body)
        found: dict[str, frozenset[str]] = {}
        while True:
            data = self._socket.recv(1 << 18)
            for kind, message in _messages(data):
                if kind == NLMSG_DONE:
                    return found
                found.update(_host_route(message, family))

    def close(self) -> None:
        self._socket.close()


def _messages(data: bytes) -> Iterable[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterable[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _host_route(message: bytes, family: int) -> dict[str, frozenset[str]]:
    """One route message, when it is a host route by gateways in the main table (struct rtmsg, rtnetlink(7))."""
    length = message[1]
    attributes = dict(_attributes(message[12:]))
    table = struct.unpack("=I", attributes[RTA_TABLE])[0] if RTA_TABLE in attributes else message[4]
    if table != MAIN_TABLE or length != (32 if family == socket.AF_INET else 128) or RTA_DST not in attributes:
        return {}
    hops = _hops(attributes.items())
    rest = attributes.get(RTA_MULTIPATH, b"")
    while len(rest) >= 8:
        size = struct.unpack_from("=H", rest)[0]
        hops += _hops(_attributes(rest[8:size]))
        rest = rest[(size + 3) & ~3 :]
    if not hops:
        return {}
    return {str(ip_address(attributes[RTA_DST])): frozenset(hops)}


def _hops(attributes: Iterable[tuple[int, bytes]]) -> list[str]:
    """Gateways; RTA_VIA is one of the other family, with that family's number before it (struct rtvia)."""
    found = [
        value if kind == RTA_GATEWAY else value[2:] for kind, value in attributes if kind in (RTA_GATEWAY, RTA_VIA)
    ]
    return [str(ip_address(value)) for value in found]


def link_locals(node: Node) -> list[str]:
    """The IPv6 addresses of a node's interfaces that are good on one link only."""
    rows = [line.split() for line in _proc(node, "if_inet6").splitlines()]
    return [str(ip_address(bytes.fromhex(words[0]))) for words in rows if words[3] == "20"]


def _proc(node: Node, name: str) -> str:
    return Path(f"/proc/{node.holder}/net/{name}").read_text()


def weights(node: Node) -> dict[Service, dict[str, int]]:
    """The IPVS table: service -> real server -> weight; without services by firewall mark.

    /proc/net/ip_vs would be cheaper, but leaves services out when it needs more than one page and other namespaces
    have services too (ip_vs_ctl.c: ip_vs_info_seq_next() counts those, ip_vs_info_array() does not).
    """
    table: dict[Service, dict[str, int]] = {}
    for line in node.run(["ipvsadm", "-Sn"], check=True).stdout.splitlines():
        words = line.split()
        if words[1] == "-f":
            continue
        service = _endpoint(words[2])
        if words[0] == "-A":
            table[service] = {}
        else:
            table[service][_endpoint(words[4])[0]] = int(words[words.index("-w") + 1])
    return table


def connections(node: Node) -> dict[Flow, str]:
    """The L4 node's connection table: flow -> real server. Rows stay for a while after a flow's end."""
    flows = {}
    for line in _proc(node, "ip_vs_conn").splitlines()[1:]:
        words = line.split()
        if words[0] in PROTOCOLS:
            source, vip, real = (_address(words[index]) for index in (1, 3, 5))
            flows[Flow(source, int(words[2], 16), vip, PROTOCOLS[words[0]])] = real
    return flows


def _endpoint(text: str) -> Service:
    """`192.0.2.1:80` or `[2001:db8::1]:80`."""
    address, _, port = text.rpartition(":")
    return str(ip_address(address.strip("[]"))), int(port)


@cache
def _address(text: str) -> str:
    """`C0000297` or `2001:0db8:...` as everybody else writes it."""
    return str(ip_address(text if ":" in text else int(text, 16)))


@dataclass(frozen=True)
class Bytes:
    """What has passed an interface."""

    received: int
    sent: int

    def since(self, before: "Bytes") -> "Bytes":
        return Bytes(self.received - before.received, self.sent - before.sent)


def passed(node: Node, interface: str) -> Bytes:
    """An interface's counters."""
    for line in _proc(node, "dev").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == interface:
            words = rest.split()
            return Bytes(int(words[0]), int(words[8]))
    raise LookupError(f"no interface {interface} in {node.name}")


@dataclass
class Sender:
    """Counts the packets that leave a node by one interface with a source address out of some networks.

    A classic BPF program on a packet socket does it in the kernel; `count` reads the socket's statistics, which
    include what found no room in its queue.
    """

    node: Node
    interface: str
    networks: tuple[IPv4Network | IPv6Network, ...]
    _socket: socket.socket = field(init=False)
    _counted: int = 0

    def __post_init__(self) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            program = _from_networks(self.networks)
            buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
            made.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer))
            )
            made.bind((self.interface, ETH_P_ALL))
            return made

        self._socket = self.node.call(make)

    @property
    def count(self) -> int:
        """Packets since the beginning. Reading resets the kernel's counter (packet(7)), so they are summed here."""
        packets, _ = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._counted += packets
        return self._counted

    def close(self) -> None:
        self._socket.close()


def _from_networks(networks: Iterable[IPv4Network | IPv6Network]) -> list[tuple[int, int, int, int]]:
    """cBPF over the network header: outgoing packets whose source is in one of the networks (filter.h, bpf.h)."""
    load, load_ancillary, jump_equal, both, give = 0x20, 0x20, 0x15, 0x54, 0x06
    protocol, packet_type, outgoing = 0xFFFFF000, 0xFFFFF004, 4
    code = [(load_ancillary, 0, 0, packet_type), (jump_equal, 1, 0, outgoing), (give, 0, 0, 0)]
    for network in networks:
        start, kind = (12, 0x0800) if network.version == 4 else (8, 0x86DD)
        words = [
            (start + index, int.from_bytes(network.netmask.packed[index : index + 4], "big"), network.network_address)
            for index in range(0, len(network.netmask.packed), 4)
        ]
        tests = []
        for offset, mask, address in words:
            if mask:
                wanted = int.from_bytes(address.packed[offset - start : offset - start + 4], "big")
                tests.append([(load, 0, 0, offset), (both, 0, 0, mask), (jump_equal, 0, 0, wanted)])
        size = sum(len(test) for test in tests) + 1
        code += [(load_ancillary, 0, 0, protocol), (jump_equal, 0, size, kind)]
        left = size
        for test in tests:
            left -= len(test)
            code += [*test[:2], (jump_equal, 0, left, test[2][3])]
        code.append((give, 0, 0, 1))
    code.append((give, 0, 0, 0))
    return code
