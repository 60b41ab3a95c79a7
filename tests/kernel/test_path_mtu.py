"""A path of MTU 1400: 1 MB each way gets through on both families, and an ICMP error finds the right real server by an
L4 node that has never seen the flow."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest
from narrow import CLIENT, FAMILY, NARROW, PATIENCE_S, build

pytestmark = pytest.mark.kernel

STALLED_S = 1.5
VERSIONS = (4, 6)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


WAYS = [("a", "b"), ("b", "a")]
CORE = (("inner", "core"), ("a", "eth0"), ("b", "eth0"), ("s1", "eth0"), ("s2", "eth0"))
MIDDLE = (("outer", "middle"), ("inner", "middle"))


@pytest.mark.parametrize("told", [True, False])
def test_too_big_reaches_the_right_server_by_any_l4_node(stack: ExitStack, tmp_path: Path, told: bool) -> None:
    """A narrow link before the routers' own network: downloads need an ICMP error at the real server."""
    site = build(stack, tmp_path)
    site.mtu(*MIDDLE)
    if told:
        site.tell()
    for (packets, errors), version in product(WAYS, VERSIONS):
        site.steer(packets, errors)
        site.forget()
        server = site.download(version)
        other = {"s1": "s2", "s2": "s1"}[server]
        assert (site.learned(server, version), site.learned(other, version)) == (NARROW, 0), (packets, errors)
        site.forget()
        assert site.upload(version)


def test_without_scheduled_errors_only_the_l4_node_that_has_the_flow_passes_them_on(
    stack: ExitStack, tmp_path: Path
) -> None:
    """What the setting is for; and that the test above can fail."""
    site = build(stack, tmp_path)
    site.mtu(*MIDDLE)
    for name in ("a", "b"):
        site.nodes[name].call(lambda: Path("/proc/sys/net/ipv4/vs/schedule_icmp").write_text("0"))
    for version in VERSIONS:
        site.steer("a", "b")
        assert site.download(version, STALLED_S) == ""
        site.steer("b", "b")
        assert site.download(version)


@pytest.mark.parametrize("told", [True, False])
def test_a_narrow_network_between_the_nodes(stack: ExitStack, tmp_path: Path, told: bool) -> None:
    """Neither the clients' packets fit nor the tunnel's. IPv4 is fragmented in the tunnel, IPv6 clients are told."""
    site = build(stack, tmp_path)
    site.mtu(*CORE)
    if told:
        site.tell()
    for (packets, errors), version in product(WAYS, VERSIONS):
        site.steer(packets, errors)
        for transfer in (site.upload, site.download):
            site.forget()
            assert transfer(version), (packets, errors, transfer)


@pytest.mark.parametrize("tunnel", ["ipip", "gre"])
def test_a_narrow_way_from_the_l4_nodes_to_the_real_servers(stack: ExitStack, tmp_path: Path, tunnel: str) -> None:
    """The error is about the outer packet: the L4 node must hear it and tell the client (see roles/too_big.py)."""
    site = build(stack, tmp_path, rear=True, tunnel=tunnel)
    site.mtu(("inner", "rear"), ("s1", "eth0"), ("s2", "eth0"))
    for (packets, errors), version in product(WAYS, VERSIONS):
        site.steer(packets, errors)
        for transfer in (site.upload, site.download):
            site.forget()
            assert transfer(version), (packets, errors, transfer)


def test_without_a_listener_ipv6_uploads_stall(stack: ExitStack, tmp_path: Path) -> None:
    site = build(stack, tmp_path, rear=True)
    site.mtu(("inner", "rear"), ("s1", "eth0"), ("s2", "eth0"))
    site.nodes["a"].run(("ip", "link", "del", "lb-ip6"), check=True)
    assert site.upload(6, STALLED_S) == ""
    assert site.upload(4)


@pytest.mark.parametrize("inner", [4, 6])
def test_the_listener_passes_nothing_on(stack: ExitStack, tmp_path: Path, inner: int) -> None:
    """What anybody tunnels to an L4 node ends there, unlike what is sent without a tunnel."""
    site = build(stack, tmp_path)
    server = site.cluster.nodes["s1"].address(inner)
    listener = site.nodes["s1"].call(lambda: socket.socket(FAMILY[inner], socket.SOCK_DGRAM))
    stack.callback(listener.close)
    listener.bind((str(server), 5000))
    listener.settimeout(PATIENCE_S)
    protocol = {4: socket.IPPROTO_IPIP, 6: socket.IPPROTO_IPV6}[inner]
    with (
        site.nodes["client"].call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol)) as tunnel,
        site.nodes["client"].call(lambda: socket.socket(FAMILY[inner], socket.SOCK_DGRAM)) as plain,
    ):
        tunnel.sendto(_datagram(inner, str(server), b"wrapped"), (str(site.cluster.nodes["a"].ipv6), 0))
        plain.sendto(b"plain", (str(server), 5000))
        assert listener.recv(100) == b"plain"
        for name, setting in (("ipv6", "disable_ipv6"), ("ipv4", "forwarding")):
            setting_path = Path(f"/proc/sys/net/{name}/conf/lb-ip6/{setting}")
            value = {"disable_ipv6": "0", "forwarding": "1"}[setting]
            site.nodes["a"].call(lambda path=setting_path, value=value: path.write_text(value))  # type: ignore[misc]
        tunnel.sendto(_datagram(inner, str(server), b"wrapped"), (str(site.cluster.nodes["a"].ipv6), 0))
        assert listener.recv(100) == b"wrapped", "the test can fail"


def _datagram(version: int, server: str, text: bytes) -> bytes:
    """An IP packet with a UDP datagram from the client."""

    ends = b"".join(socket.inet_pton(FAMILY[version], one) for one in (CLIENT[version], server))
    udp = struct.pack("!HHHH", 4000, 5000, 8 + len(text), 0) + text
    pseudo = ends + struct.pack("!II", len(udp), 17)
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp)) + udp[8:]
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + ends + udp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    return header[:10] + struct.pack("!H", _checksum(header + ends)) + ends + udp


def _checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
