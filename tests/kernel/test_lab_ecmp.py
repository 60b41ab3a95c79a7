"""A lab's routers go by the 5-tuple; and without the cure they do not, or these tests would prove nothing.

                /-- hop0
client -- router --- hop1         each hop has the VIP, no way back, and writes down the SYNs it gets
                \\-- ...
"""

import socket
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from lbnode.lab import ecmp, links
from lbnode.lab.links import Port, Route
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel

VIP = {4: "203.0.113.1", 6: "2001:db8:f::1"}
HOPS = 4
FLOWS = 48


@dataclass
class Fork:
    """The drawing above, and what arrived: source port to the hops that saw it, one entry per SYN."""

    client: Node
    router: Node
    taps: list[socket.socket]
    seen: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def look(self) -> dict[int, list[int]]:
        for hop, tap in enumerate(self.taps):
            while True:
                try:
                    packet = tap.recv(256)
                except BlockingIOError:
                    break
                segment = packet[20:] if packet[0] >> 4 == 4 else packet[40:]
                protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
                if protocol == socket.IPPROTO_TCP:
                    self.seen[int.from_bytes(segment[:2], "big")].append(hop)
        return self.seen


@pytest.fixture
def drawing() -> Iterator[Fork]:
    nodes = [Node("client"), Node("router"), *(Node(f"hop{number}") for number in range(HOPS))]
    client, router, *hops = nodes
    links.connect(
        Port(client, "eth0", ("192.0.2.2/24", "2001:db8:a::2/64")),
        Port(router, "up", ("192.0.2.1/24", "2001:db8:a::1/64")),
    )
    taps = []
    for number, hop in enumerate(hops):
        links.connect(
            Port(router, f"hop{number}", (f"198.51.100.{number * 2}/31", f"2001:db8:b:{number}::1/64")),
            Port(hop, "eth0", (f"198.51.100.{number * 2 + 1}/31", f"2001:db8:b:{number}::2/64")),
        )
        links.address(hop, "lo", f"{VIP[4]}/32", f"{VIP[6]}/128")
        tap = hop.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
        tap.setblocking(False)
        taps.append(tap)
    links.route(client, Route("0.0.0.0/0", ("192.0.2.1",)), Route("::/0", ("2001:db8:a::1",)))
    links.route(router, Route(f"{VIP[4]}/32", tuple(f"198.51.100.{number * 2 + 1}" for number in range(HOPS))))
    links.route(router, Route(f"{VIP[6]}/128", tuple(f"2001:db8:b:{number}::2" for number in range(HOPS))))
    ecmp.sysctls(router, ecmp.SYSCTLS)
    yield Fork(client, router, taps)
    for tap in taps:
        tap.close()
    for node in nodes:
        node.close()


def syn(client: Node, family: int, port: int) -> socket.socket:
    """A connection attempt that nobody will answer; the caller closes it."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    flow = client.call(lambda: socket.socket(kind, socket.SOCK_STREAM))
    flow.setblocking(False)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    flow.bind(("", port))
    flow.connect_ex((VIP[family], 80))
    return flow


def same_flow_three_times(drawing: Fork, family: int) -> dict[int, list[int]]:
    ports = range(20000, 20000 + FLOWS)
    for attempt in range(1, 4):
        for port in ports:
            syn(drawing.client, family, port).close()
        wait_until(lambda attempt=attempt: all(len(drawing.look()[port]) >= attempt for port in ports), 10, "SYNs")
    return {port: drawing.seen[port] for port in ports}


@pytest.mark.parametrize("family", [4, 6])
def test_a_flow_has_one_next_hop_whatever_socket_it_comes_from(drawing: Fork, family: int) -> None:
    ecmp.router(drawing.router, ["up", *(f"hop{number}" for number in range(HOPS))])
    seen = same_flow_three_times(drawing, family)
    assert all(len(set(hops)) == 1 for hops in seen.values())
    shares = [sum(hops[0] == number for hops in seen.values()) for number in range(HOPS)]
    assert min(shares) >= FLOWS / HOPS / 3


@pytest.mark.parametrize("family", [4, 6])
def test_without_the_cure_the_socket_decides(drawing: Fork, family: int) -> None:
    seen = same_flow_three_times(drawing, family)
    assert sum(len(set(hops)) > 1 for hops in seen.values()) > FLOWS / 2


@pytest.mark.parametrize("cured", [True, False])
def test_retransmission_time_outs_do_not_move_a_flow(drawing: Fork, cured: bool) -> None:
    if cured:
        ecmp.router(drawing.router, ["up", *(f"hop{number}" for number in range(HOPS))])
    ports = range(30000, 30000 + FLOWS)
    flows = [syn(drawing.client, 4, port) for port in ports]
    # The first time-out comes after 1 s (RFC 6298), the second 2 s later.
    wait_until(lambda: all(len(drawing.look()[port]) >= 3 for port in ports), 15, "two retransmissions of each flow")
    moved = [port for port in ports if len(set(drawing.seen[port])) > 1]
    for flow in flows:
        flow.close()
    assert bool(moved) is not cured
