"""Devices, addresses and kernel settings in a fresh network namespace of a real kernel."""

import asyncio
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.net.links import LinkDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.plan import Change, Plan, diff
from lbnode.resources import Address, Link, Row, Sysctl

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

VIPS = Link("lb-vip", "dummy")
V4 = Link("lb-v4", "ipip", "192.0.2.10")
V6 = Link("lb-v6", "ip6tnl", "2001:db8::10")
VIP4, VIP6 = Address("198.51.100.1", "lb-vip"), Address("2001:db8:5::1", "lb-vip")
WANTED = (VIPS, V4, V6, VIP4, VIP6)


def ip(*argv: str) -> str:
    return subprocess.run(("ip", *argv), check=True, capture_output=True, text=True).stdout


def plan(wanted: Sequence[Row]) -> Plan:
    observed = LinkDriver().observe(wanted)
    return diff(observed.rows, wanted, foreign=observed.foreign)


def run(wanted: Sequence[Row]) -> list[str]:
    """One pass; the errors. Nothing may be left to do when there are none."""
    errors = [result.error for result in LinkDriver().apply(plan(wanted).changes)]
    assert any(errors) or not plan(wanted), plan(wanted)
    return [error for error in errors if error]


def as_lines(wanted: Sequence[Row]) -> list[str]:
    return str(plan(wanted)).splitlines()


def test_what_is_made_is_what_is_seen() -> None:
    assert run(WANTED) == []
    assert set(LinkDriver().observe(WANTED).rows) == set(WANTED)
    assert "encaplimit none" in ip("-d", "link", "show", "lb-v6")
    assert "ip6tnl any remote any local 2001:db8::10" in ip("-d", "link", "show", "lb-v6")
    assert "ipip ipip remote any local 192.0.2.10 ttl inherit" in ip("-d", "link", "show", "lb-v4")
    assert "2001:db8:5::1/128 scope global nodad noprefixroute" in ip("address", "show", "lb-vip")


def test_what_is_not_wanted_goes_and_what_is_foreign_stays() -> None:
    ip("link", "add", "eth-test", "type", "dummy")
    ip("address", "add", "203.0.113.1/32", "dev", "eth-test")
    ip("address", "add", "127.0.0.9/32", "dev", "lo")
    run(WANTED)
    tunl0 = ip("-d", "link", "show", "tunl0")
    ip("address", "add", "198.51.100.99/32", "dev", "lb-vip")
    assert as_lines(WANTED) == ["- address 198.51.100.99 on lb-vip"], "whoever put it on our device"
    assert run(()) == []
    assert "lb-" not in ip("link")
    assert "203.0.113.1/32" in ip("address", "show", "eth-test")
    assert "127.0.0.9/32" in ip("address", "show", "lo")
    assert ip("-d", "link", "show", "tunl0") == tunl0


def test_addresses_in_the_wrong_place_or_shape_are_reported_and_left_alone() -> None:
    run(WANTED)
    ip("address", "add", "198.51.100.1/32", "dev", "lo")
    ip("address", "add", "10.0.0.1/24", "dev", "lb-vip")
    assert as_lines(WANTED) == [
        "  left alone: address 10.0.0.1/24 on lb-vip",
        "  left alone: address 198.51.100.1/32 on lo",
    ]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (["address del 198.51.100.1/32 dev lb-vip"], ["+ address 198.51.100.1 on lb-vip"]),
        (["address flush dev lb-vip"], ["+ address 198.51.100.1 on lb-vip", "+ address 2001:db8:5::1 on lb-vip"]),
        (["link set lb-vip down"], ["~ link lb-vip state down -> up", "+ address 2001:db8:5::1 on lb-vip"]),
        (["link set lb-v4 down"], ["~ link lb-v4 state down -> up"]),
        (["link del lb-v4"], ["+ link lb-v4 type ipip local 192.0.2.10 state up"]),
        (
            ["link set lb-v4 type ipip local 192.0.2.11"],
            ["~ link lb-v4 local 192.0.2.11 -> 192.0.2.10"],
        ),
        (
            ["link set lb-v6 type ip6tnl local 2001:db8::11 mode ip6ip6"],
            ["~ link lb-v6 local 2001:db8::11 protocol 41 -> 2001:db8::10"],
        ),
        (
            ["link del lb-v4", "link add lb-v4 up type ipip local 192.0.2.10 remote 192.0.2.9"],
            ["~ link lb-v4 local 192.0.2.10 remote 192.0.2.9 -> 192.0.2.10"],
        ),
        (
            ["link del lb-v6", "link add lb-v6 up type ip6tnl external"],
            ["~ link lb-v6 local external -> 2001:db8::10"],
        ),
        (
            ["link del lb-v4", "link add lb-v4 up type dummy"],
            ["~ link lb-v4 type dummy -> ipip local none -> 192.0.2.10"],
        ),
    ],
)
def test_damage_is_seen_and_repaired_in_one_pass(damage: list[str], expected: list[str]) -> None:
    run(WANTED)
    for command in damage:
        ip(*command.split())
    assert as_lines(WANTED) == expected
    assert run(WANTED) == []


def test_a_device_made_anew_gets_its_addresses_back_in_the_same_step() -> None:
    ip("link", "add", "lb-vip", "type", "bridge")
    ip("link", "set", "lb-vip", "up")
    for address in (VIP4, VIP6):
        ip("address", "add", address.address, "dev", "lb-vip", "nodad")
    wanted = (VIPS, VIP4, VIP6)
    assert as_lines(wanted) == ["~ link lb-vip type bridge -> dummy"]
    assert run(wanted) == []


def test_a_tunnel_with_another_local_is_changed_in_place() -> None:
    run(WANTED)
    index = socket.if_nametoindex("lb-v4"), socket.if_nametoindex("lb-v6")
    assert run((VIPS, replace(V4, local="192.0.2.77"), replace(V6, local="2001:db8::77"), VIP4, VIP6)) == []
    assert (socket.if_nametoindex("lb-v4"), socket.if_nametoindex("lb-v6")) == index


def test_each_failure_is_told_and_the_rest_is_done() -> None:
    ip("link", "add", "other", "type", "ipip", "local", "192.0.2.10")
    lost = Address("198.51.100.7", "lb-none")
    odd = Link("lb-odd", "no-such-type")  # type: ignore[arg-type]
    assert run((*WANTED, lost, odd)) == [
        "cannot make lb-odd: this kernel has no devices of type no-such-type: module no-such-type is missing",
        "cannot make lb-v4: another ipip tunnel has local 192.0.2.10 remote any already",
        "cannot put 198.51.100.7 on lb-none: there is no such device",
    ]
    assert set(LinkDriver().observe(()).rows) == {VIPS, V6, VIP4, VIP6}


def test_a_device_that_is_not_virtual_is_not_ours_whatever_its_name() -> None:
    ip("link", "set", "lo", "down")
    ip("link", "set", "lo", "name", "lb-lo")
    wanted = (Link("lb-lo", "dummy"),)
    assert as_lines(()) == ["  left alone: device lb-lo (not virtual)"]
    assert run(wanted) == ["cannot make lb-lo: it is not a virtual device; rename it"]


def test_a_device_can_be_wanted_down() -> None:
    down = replace(VIPS, up=False)
    assert run((down,)) == []
    assert "state DOWN" in ip("link", "show", "lb-vip")
    assert run((VIPS,)) == []
    assert run((down,)) == []


def test_removing_what_is_gone_is_no_error() -> None:
    results = LinkDriver().apply([Change(VIP4, None), Change(VIP6, None), Change(VIPS, None)])
    assert [result.error for result in results] == ["", "", ""]


def test_switched_off_ipv6_is_named() -> None:
    run((VIPS,))
    Path("/proc/sys/net/ipv6/conf/lb-vip/disable_ipv6").write_text("1")
    why = "IPv6 is switched off there (net.ipv6.conf.lb-vip.disable_ipv6)"
    assert run((VIPS, VIP6)) == [f"cannot put {VIP6.address} on lb-vip: {why}"]


def test_drivers_work_in_a_thread_while_a_loop_runs() -> None:
    async def passes() -> None:
        for wanted in (WANTED, (), WANTED):
            assert await asyncio.to_thread(run, wanted) == []

    asyncio.run(passes())


@pytest.mark.parametrize("first", ["198.18.0.0", "2001:db8:5::"])
def test_a_thousand_vips_take_little_time(first: str) -> None:
    vips = tuple(Address(str(ip_address(first) + number), "lb-vip") for number in range(1, 1001))
    run((VIPS,))
    changes = plan((VIPS, *vips)).changes
    began = time.monotonic()
    results = LinkDriver().apply(changes)
    written = time.monotonic()
    rows = LinkDriver().observe(()).rows
    read = time.monotonic()
    removed = LinkDriver().apply([Change(vip, None) for vip in vips])
    gone = time.monotonic()
    assert not any(result.error for result in (*results, *removed))
    assert set(rows) == {VIPS, *vips}
    assert max(written - began, read - written, gone - read) < 1


def test_kernel_settings_take_and_stay() -> None:
    run(WANTED)
    wanted = [
        Sysctl("net.ipv4.conf.all.rp_filter", "0"),
        Sysctl("net.ipv4.conf.lb-v4.rp_filter", "2"),
        Sysctl("net.ipv4.ip_nonlocal_bind", "1"),
        Sysctl("net.ipv4.tcp_rmem", "4096 131072 6291456"),
        Sysctl("net.ipv4.vs.sloppy_tcp", "1"),
    ]
    driver = SysctlDriver()
    results = driver.apply(diff(driver.observe(wanted).rows, wanted).changes)
    assert [result.error for result in results if result.error] == []
    assert not diff(driver.observe(wanted).rows, wanted)
    (bad,) = driver.apply([Change(None, Sysctl("net.ipv4.ip_forward", "maybe"))])
    assert bad.error == "cannot set net.ipv4.ip_forward to maybe: Invalid argument"
    assert driver.observe([Sysctl("net.ipv4.conf.lb-none.rp_filter", "0")]).rows == ()


# A tunnelled packet from the wire: a client's UDP datagram to the VIP, wrapped by an L4 node for this node's address.

CLIENT = {4: "203.0.113.5", 6: "2001:db8:7::5"}
OUTER = {4: ("192.0.2.20", V4.local), 6: ("2001:db8::20", V6.local)}
VIP = {4: VIP4.address, 6: VIP6.address}
PORT = 5000


@pytest.fixture
def wire() -> Iterator[socket.socket]:
    """The other end of this node's uplink."""
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
    ip("link", "set", "uplink", "address", "02:00:00:00:00:01", "up")
    ip("link", "set", "far", "up")
    for address in ("192.0.2.10/24", "2001:db8::10/64"):
        ip("address", "add", address, "dev", "uplink", "nodad")
    for family in ("-4", "-6"):
        ip(family, "route", "add", "default", "dev", "uplink")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as end:
        end.bind(("far", 0))
        yield end


def checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    return header[:10] + struct.pack("!H", checksum(header + addresses)) + addresses + payload


def tunnelled(outer: int, inner: int) -> bytes:
    """An Ethernet frame: IP version `outer` around IP version `inner` around UDP."""
    source, destination = CLIENT[inner], VIP[inner]
    text = b"hello!"
    udp = struct.pack("!HHHH", 4000, PORT, 8 + len(text), 0) + text
    ends = ip_address(source).packed + ip_address(destination).packed
    udp = udp[:6] + struct.pack("!H", checksum(ends + struct.pack("!II", len(udp), 17) + udp)) + udp[8:]
    around = packet(*OUTER[outer], {4: 4, 6: 41}[inner], packet(source, destination, 17, udp))
    ethertype = {4: 0x0800, 6: 0x86DD}[outer]
    return bytes.fromhex("020000000001 020000000002") + struct.pack("!H", ethertype) + around


def received(wire: socket.socket, outer: int, inner: int, seconds: float = 2) -> str:
    """Who sent the datagram that reached a listener on the VIP; empty when none did."""
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[inner]
    with socket.socket(family, socket.SOCK_DGRAM) as listener:
        listener.bind((VIP[inner], PORT))
        listener.settimeout(seconds)
        wire.send(tunnelled(outer, inner))
        try:
            return str(listener.recvfrom(100)[1][0])
        except TimeoutError:
            return ""


def rp_filter(value: str) -> None:
    rows = [Sysctl(f"net.ipv4.conf.{name}.rp_filter", value) for name in ("all", "lb-v4", "lb-v6")]
    assert not any(result.error for result in SysctlDriver().apply([Change(None, row) for row in rows]))


@pytest.mark.parametrize(("outer", "inner"), [(4, 4), (6, 6), (6, 4)])
def test_a_tunnelled_packet_reaches_the_vip_with_its_real_sender(wire: socket.socket, outer: int, inner: int) -> None:
    run(WANTED)
    rp_filter("0")
    assert received(wire, outer, inner) == CLIENT[inner]


def test_strict_rp_filter_drops_and_the_settings_cure_it(wire: socket.socket) -> None:
    run(WANTED)
    rp_filter("1")
    assert received(wire, 4, 4, seconds=0.3) == ""
    rp_filter("0")
    assert received(wire, 4, 4) == CLIENT[4]


def test_a_repaired_tunnel_takes_packets_again(wire: socket.socket) -> None:
    run((VIPS, replace(V4, local="192.0.2.11"), V6, VIP4, VIP6))
    rp_filter("0")
    assert received(wire, 4, 4, seconds=0.3) == ""
    run(WANTED)
    assert received(wire, 4, 4) == CLIENT[4]
