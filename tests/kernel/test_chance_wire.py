"""What flows do on their detour, on the wire: open quickly and without state, send much, hear of narrow ways, end, and
keep the node that they come by from being taken away.

A fifth real server has been added; the flows that are put to the test began before, by the other L4 node, and come to
it now instead of to their own.
"""

import json
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from chances import (
    RELAY,
    SERIALS,
    Chances,
    added,
    five,
    opened_by_cookie,
    opened_to_be_detoured,
    opened_to_reach_relay,
    over,
    will_be_detoured,
)
from direct_site import VIP, Site, text
from echo import BYE, DEADLINE_S, ECHO, Flow, answers
from onelan import CLIENT
from tunnelled import ICMP, ICMPV6, TCP, checksum, ip, tcp

from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("version", [4, 6])

DETOURED = 8
"""Flows of each family that all the tests together use up."""
SIZE = 2 << 20
NARROW = 1300
ROOMY, FITS = 1500, 1400
"""MTU of the client: full segments of it do not fit into the tunnel, or do."""
MSG_FASTOPEN = 0x20000000
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVING, WITHOUT_PROBE = 1, -1
TIME_WAIT = "06"


class Detour:
    """`quick` are flows that were opened with data in the SYN; of each kind those that take the detour."""

    def __init__(self, site: Site, chances: Chances, flows: list[Flow], quick: list[Flow]) -> None:
        self.site, self.chances = site, chances
        self.flows = [flow for flow in flows if chances.is_detoured(flow)]
        self.quick = [flow for flow in quick if chances.is_detoured(flow)]

    def take(self, version: int, count: int) -> list[Flow]:
        """Flows that nobody has used since."""
        found = [flow for flow in self.flows if (":" in flow.source[0]) == (version == 6)][:count]
        assert len(found) == count
        self.flows = [flow for flow in self.flows if flow not in found]
        return found

    @property
    def forwarded(self) -> int:
        return self.chances.counted("forwarded")

    def mtu(self, mtu: int) -> None:
        self.site.nodes["client"].run(["ip", "link", "set", "eth0", "mtu", str(mtu)], check=True)

    @contextmanager
    def nobody_in_vain(self) -> Iterator[None]:
        """No packet has come to anybody who did not know on."""
        names = ("alone", "two-hops", "stranger", "forwarded-again")
        before = [self.chances.counted(name) for name in names]
        yield
        assert [self.chances.counted(name) for name in names] == before


@pytest.fixture(scope="module")
def detour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detour]:
    with five(tmp_path_factory.mktemp("detour")) as site:
        chances = Chances(site)
        chances.learn()
        settings = {"net.ipv4.tcp_fastopen": "3", "net.ipv4.tcp_fastopen_key": "1-2-3-4"}
        for name in (*SERIALS, "client"):
            for key, value in settings.items():
                site.nodes[name].run(["sysctl", "-qw", f"{key}={value}"], check=True)
        over(site, ["l4-1"])
        flows, quick = [], []
        for version in (4, 6):
            flows += opened_to_be_detoured(site, DETOURED, partial(site.connect, version))
            quick += opened_to_be_detoured(site, 3, partial(opened_quickly, site, version))
        expected = [flow for flow in (*flows, *quick) if will_be_detoured(site, flow)]
        added(site)
        chances.learn()
        over(site, ["l4-2"])
        made = Detour(site, chances, flows, quick)
        assert [*made.flows, *made.quick] == expected
        yield made


def opened_quickly(site: Site, version: int) -> Flow:
    """With data in the SYN, once there is a cookie for it."""

    def begun() -> socket.socket:
        end = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        end.bind(("" if version == 4 else "::", 0))
        end.sendto(b"?", MSG_FASTOPEN, (VIP[version], ECHO))
        end.settimeout(DEADLINE_S)
        return end

    flow = Flow(site.nodes["client"].call(begun))
    site.flows.append(flow)
    flow.server = flow.end.recv(10).decode()
    return flow


def quickly_accepted(site: Site) -> int:
    """Connections whose first data came in the SYN, on all real servers."""
    return sum(netstat(site, name).get("TCPFastOpenPassive", 0) for name in SERIALS)


def netstat(site: Site, name: str) -> dict[str, int]:
    shown = site.nodes[name].run(["nstat", "-asj"], check=True).stdout
    return {key.removeprefix("TcpExt"): int(value) for key, value in json.loads(shown)["kernel"].items()}


@BOTH
def test_flows_that_were_opened_with_data_go_on(detour: Detour, version: int) -> None:
    flows = [flow for flow in detour.quick if (":" in flow.source[0]) == (version == 6)]
    assert flows
    before = detour.forwarded
    assert answers(flows) == {"own": len(flows)}
    assert detour.forwarded > before


@BOTH
def test_data_in_a_syn_is_taken_wherever_it_comes(detour: Detour, version: int) -> None:
    """Cookies are of the service, not of a server: the key is the same everywhere."""
    forwarded, accepted = detour.chances.settled(), quickly_accepted(detour.site)
    assert accepted > 2 * 3  # all but the first of each family
    flows = opened_to_reach_relay(10, partial(opened_quickly, detour.site, version))
    assert answers(flows) == {"own": len(flows)}
    assert (detour.forwarded, quickly_accepted(detour.site)) == (forwarded, accepted + len(flows))
    detour.site.end(flows)


def test_connections_are_opened_by_cookie_where_they_come(detour: Detour) -> None:
    """IPv4: where IPv6 is a module, the kernel cannot check cookies of that family (see test_classifier.py); tests/smp
    has a kernel where it is none."""
    opened_by_cookie(detour.site, detour.chances, 4, 10)
    old = detour.take(4, 2)
    before = detour.forwarded
    assert answers(old) == {"own": 2}
    assert detour.forwarded > before


@BOTH
def test_a_server_that_ends_a_flow_first_sees_its_end(detour: Detour, version: int) -> None:
    """It keeps TIME_WAIT, to which what comes late still goes, and the client's side is done."""
    (flow,) = detour.take(version, 1)
    with detour.nobody_in_vain():
        flow.end.sendall(BYE)
        assert flow.end.recv(1) == b""
        port = flow.source[1]
        flow.end.close()
        wait_until(lambda: not _states(detour.site, "client", version, port), DEADLINE_S, "the client's end")
        assert _states(detour.site, flow.server, version, port) == [TIME_WAIT]
        assert _states(detour.site, RELAY, version, port) == []


def _states(site: Site, name: str, version: int, port: int) -> list[str]:
    """Of the connections with this port on the client's side, as /proc/net/tcp has them."""
    lines = site.nodes[name].run(["cat", f"/proc/net/tcp{'6' * (version == 6)}"], check=True).stdout.splitlines()[1:]
    words = [line.split() for line in lines]
    return [word[3] for word in words if f":{port:04X}" in (word[1][-5:], word[2][-5:])]


@BOTH
def test_two_mib_arrive_byte_by_byte(detour: Detour, version: int) -> None:
    detour.mtu(FITS)
    for flow in detour.take(version, 2):
        before = detour.forwarded
        with detour.nobody_in_vain():
            assert _uploaded(detour.site, flow)
        assert flow.says() == flow.server
        assert detour.forwarded > before + SIZE // (64 << 10)


def _uploaded(site: Site, flow: Flow) -> bool:
    """Whether the server has heard exactly what was sent. It answers each piece with its name, which must not fill up
    the way back. Raises ConnectionError when the flow is reset."""
    said = random.Random(flow.source[1]).randbytes(SIZE)  # noqa: S311
    heard = site.servers.heard[flow.source]
    expected = heard.copy()
    expected.update(said)
    flow.end.setblocking(False)
    left, deadline = memoryview(said), time.monotonic() + DEADLINE_S
    with selectors.DefaultSelector() as selector:
        selector.register(flow.end, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while left or heard.digest() != expected.digest():
            assert time.monotonic() < deadline
            for _, ready in selector.select(0.1):
                if ready & selectors.EVENT_READ:
                    flow.end.recv(1 << 16)
                if left and ready & selectors.EVENT_WRITE:
                    left = left[flow.end.send(left[: 1 << 16]) :]
            if not left:
                selector.modify(flow.end, selectors.EVENT_READ)
        while selector.select(0.5):
            flow.end.recv(1 << 16)
    return True


def test_segments_that_do_not_fit_into_the_tunnel_have_no_detour_by_ipv4(detour: Detour) -> None:
    """The tunnel's packets travel in fragments, and only the first would say whose they are. Real servers keep clients
    from it (MssClamp), which takes nf_tables."""
    detour.mtu(ROOMY)
    (flow,) = detour.take(4, 1)
    before = detour.chances.counted("odd")
    with pytest.raises(ConnectionError):
        _uploaded(detour.site, flow)
    assert detour.chances.counted("odd") > before


def test_segments_that_do_not_fit_into_the_tunnel_are_made_to_by_ipv6(detour: Detour) -> None:
    """The L4 node tells the client."""
    detour.mtu(ROOMY)
    (flow,) = detour.take(6, 1)
    before = detour.chances.counted("odd"), detour.forwarded
    assert _uploaded(detour.site, flow)
    assert detour.chances.counted("odd") == before[0]
    assert detour.forwarded > before[1]


@BOTH
def test_a_server_hears_that_the_way_to_the_client_is_narrow(detour: Detour, version: int) -> None:
    """Before anything else of that flow has come by the other L4 node."""
    (flow,) = detour.take(version, 1)
    before = detour.chances.settled()
    site = detour.site
    assert _learned(site, flow.server, version) == 0
    site.nodes["client"].call(lambda: _tell_too_big(flow, version))
    wait_until(lambda: _learned(site, flow.server, version) == NARROW, DEADLINE_S, f"{flow.server} to learn of it")
    assert _learned(site, RELAY, version) == 0
    assert detour.forwarded == before + 1
    assert flow.says() == flow.server


def _tell_too_big(flow: Flow, version: int) -> None:
    """As a router before the client tells the VIP; the kernel looks whether the number can be of the flow."""
    end, (client, port) = flow.end, flow.source
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, RECEIVING)
    number = end.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, WITHOUT_PROBE)
    segment = bytearray(tcp(ECHO, port, body=bytes(1200)))
    struct.pack_into(">I", segment, 4, number)
    about = ip(VIP[version], client, TCP, bytes(segment))[: 60 if version == 6 else 40]
    kind, code = (2, 0) if version == 6 else (3, 4)
    message = struct.pack(">BBHI", kind, code, 0, NARROW) + about
    if version == 4:
        message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    family, protocol = (socket.AF_INET6, ICMPV6) if version == 6 else (socket.AF_INET, ICMP)
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(message, (VIP[version], 0))


def _learned(site: Site, name: str, version: int) -> int:
    """The path MTU to the client; 0 when nothing is known of it."""
    client = CLIENT[version == 6].split("/")[0]
    words = ["ip", f"-{version}", "route", "get", client, "from", VIP[version]]
    shown = site.nodes[name].run(words, check=True).stdout.split()
    return int(shown[shown.index("mtu") + 1]) if "mtu" in shown else 0


def test_a_node_that_flows_come_by_is_not_drained(detour: Detour, tmp_path: Path) -> None:
    """The relay has no connection of its own, and its L4 nodes' entries name it for others' flows."""
    site = detour.site
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "cluster.yaml").write_text(text(SERIALS, l4=2) + "probe: {interval_s: 0.2, timeout_s: 0.2}\n")
    argv = [sys.executable, "-m", "lbnode", "drain", "--wait", "--node", RELAY, "--etc-dir", str(etc)]
    argv += ["--run-dir", str(tmp_path / "run")]
    flows = [*detour.take(4, 1), *detour.take(6, 1)]
    stop, heard = threading.Event(), []

    def talk() -> None:
        while not stop.wait(0.5):
            heard.extend(answers(flows))

    client = threading.Thread(target=talk)
    client.start()
    try:
        waited = site.nodes[RELAY].run([*argv, "--timeout", "8s"])
    finally:
        stop.set()
        client.join()
    assert waited.returncode == 75, waited
    assert "packets of others' flows sent on in 5 seconds, after 8 s" in waited.stdout
    assert "connection" not in waited.stdout + waited.stderr
    assert set(heard) == {"own"}
    site.end(flows)
    waited = site.nodes[RELAY].run([*argv, "--timeout", "60s"], timeout=90)
    assert waited.returncode == 0, waited
    assert "flows: none" in waited.stdout
