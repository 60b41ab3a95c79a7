"""Cables, switches, addresses and routes: packets go where the drawing says."""

import socket
from collections.abc import Iterator

import pytest

from lbnode.lab import ecmp, links
from lbnode.lab.links import Port, Route
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def client() -> Iterator[Node]:
    with Node("client") as node:
        yield node


@pytest.fixture
def server() -> Iterator[Node]:
    with Node("server") as node:
        yield node


def reach(source: Node, target: Node, address: str) -> bool:
    """One datagram from node to node."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with target.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as receiver:
        receiver.bind((address, 7))
        receiver.settimeout(2)
        with source.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sender:
            sender.sendto(b"x", (address, 7))
        try:
            return receiver.recv(16) == b"x"
        except TimeoutError:
            return False


def test_a_cable_carries_both_families_at_once(client: Node, server: Node) -> None:
    links.connect(
        Port(client, "eth0", ("192.0.2.0/31", "2001:db8::1/64")),
        Port(server, "eth7", ("192.0.2.1/31", "2001:db8::2/64")),
    )
    assert reach(client, server, "192.0.2.1")
    assert reach(server, client, "2001:db8::1")


def test_a_switch_and_a_router(client: Node, server: Node) -> None:
    with Node("fabric") as fabric, Node("router") as router:
        links.lan(
            fabric,
            "left",
            [
                Port(client, "eth0", ("192.0.2.2/24", "2001:db8:1::2/64")),
                Port(router, "left", ("192.0.2.1/24", "2001:db8:1::1/64")),
            ],
        )
        links.lan(
            fabric,
            "right",
            [
                Port(server, "eth0", ("198.51.100.2/24", "2001:db8:2::2/64")),
                Port(router, "right", ("198.51.100.1/24", "2001:db8:2::1/64")),
            ],
        )
        ecmp.router(router, ["left", "right"])
        links.route(client, Route("0.0.0.0/0", ("192.0.2.1",)), Route("::/0", ("2001:db8:1::1",)))
        links.route(server, Route("0.0.0.0/0", ("198.51.100.1",)), Route("2001:db8:1::/64", ("2001:db8:2::1",)))
        links.address(server, "lo", "203.0.113.1/32")
        links.route(router, Route("203.0.113.1/32", ("198.51.100.2",)))
        assert reach(client, server, "203.0.113.1")
        assert reach(client, server, "2001:db8:2::2")


def test_a_pulled_cable_is_seen_at_the_other_end(client: Node, server: Node) -> None:
    links.connect(Port(client, "eth0", ("192.0.2.0/31",)), Port(server, "eth0", ("192.0.2.1/31",)))
    links.state(client, "eth0", up=False)
    wait_until(lambda: "NO-CARRIER" in server.run(["ip", "link", "show", "eth0"]).stdout, 5, "the loss of carrier")
    links.state(client, "eth0", up=True)
    wait_until(lambda: "LOWER_UP" in server.run(["ip", "link", "show", "eth0"]).stdout, 5, "the carrier")
    assert reach(client, server, "192.0.2.1")
