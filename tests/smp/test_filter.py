"""Our nftables table on a real kernel, with packets: who gets through, how many, with which mark and MSS."""

import json
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

import pytest

from lbnode.errors import Missing
from lbnode.lab.links import Port, Route, address, connect, route
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.net.filter import FilterDriver
from lbnode.net.links import LinkDriver
from lbnode.plan import Plan, diff
from lbnode.resources import Link, MssClamp, PacketMark, Row, ServiceKey, SourceAllow, SynLimit, TunnelGuard

pytestmark = pytest.mark.kernel

VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
FRIEND = {4: "203.0.113.5", 6: "2001:db8:7::5"}
OTHER = {4: "203.0.113.77", 6: "2001:db8:77::5"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
KIND = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
PORT, OPEN_PORT = 80, 81
SOON_S, LATE_S = 0.4, 5.0
BOTH = pytest.mark.parametrize("version", [4, 6])

Packet = Callable[[bytes], object]


def service(version: int, protocol: str = "tcp", port: int = PORT) -> ServiceKey:
    return ServiceKey(VIP[version], protocol, port)  # type: ignore[arg-type]


class Pair:
    """A client and a server with the VIPs, a cable between them, and the driver of the server."""

    def __init__(self, client: Node, server: Node) -> None:
        self.client, self.server, self.driver = client, server, FilterDriver()
        own = (("192.0.2.1/24", "2001:db8::1/64"), ("192.0.2.2/24", "2001:db8::2/64"))
        connect(Port(client, "eth0", own[0]), Port(server, "eth0", own[1]))
        address(
            client, "lo", *(f"{who[4]}/32" for who in (FRIEND, OTHER)), *(f"{who[6]}/128" for who in (FRIEND, OTHER))
        )
        address(server, "lo", f"{VIP[4]}/32", f"{VIP[6]}/128")
        route(client, Route("0.0.0.0/0", ("192.0.2.2",)), Route("::/0", ("2001:db8::2",)))
        route(server, Route("0.0.0.0/0", ("192.0.2.1",)), Route("::/0", ("2001:db8::1",)))

    def plan(self, wanted: Sequence[Row]) -> Plan:
        return diff(self.server.call(lambda: self.driver.observe(wanted)).rows, wanted)

    def want(self, *wanted: Row) -> None:
        """One pass: what is wanted is there, and a second pass has nothing to do."""
        changes = self.plan(wanted).changes
        results = self.server.call(lambda: self.driver.apply(changes))
        assert [result.error for result in results if result.error] == []
        assert not self.plan(wanted), self.plan(wanted)

    def nft(self, *argv: str, given: str = "") -> str:
        return self.server.run(("nft", *argv), input=given, check=True).stdout

    def open(self, node: Node, version: int, protocol: str) -> socket.socket:
        made = node.call(lambda: socket.socket(FAMILY[version], KIND[protocol]))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(LATE_S)
        return made

    def listen(self, version: int, protocol: str, port: int = PORT) -> socket.socket:
        listener = self.open(self.server, version, protocol)
        listener.bind((VIP[version], port))
        if protocol == "tcp":
            listener.listen(512)
        return listener

    def reaches(self, who: dict[int, str], version: int, protocol: str, port: int = PORT) -> bool:
        """Whether a packet from that address gets to a listener of the service."""
        with self.listen(version, protocol, port) as listener, self.open(self.client, version, protocol) as sender:
            sender.bind((who[version], 0))
            sender.settimeout(SOON_S)
            listener.settimeout(SOON_S)
            try:
                sender.connect((VIP[version], port))
                if protocol == "udp":
                    sender.send(b"hello")
                    listener.recvfrom(100)
            except TimeoutError:
                return False
            return True

    def pings(self, who: dict[int, str], version: int) -> bool:
        """Whether an echo request from that address is answered."""
        protocol = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}[version]
        with self.client.call(lambda: socket.socket(FAMILY[version], socket.SOCK_RAW, protocol)) as sender:
            sender.bind((who[version], 0))
            sender.settimeout(SOON_S)
            request = struct.pack("!BBHHH", {4: 8, 6: 128}[version], 0, 0, 1, 1)
            checked = request[:2] + struct.pack("!H", ~(sum(struct.unpack("!4H", request))) & 0xFFFF) + request[4:]
            sender.sendto(checked, (VIP[version], 0))
            with suppress(TimeoutError):
                while True:
                    answer = sender.recv(200)
                    if answer[20 if version == 4 else 0] == {4: 0, 6: 129}[version]:
                        return True
            return False


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        client, server = (stack.enter_context(Node(name, private=False)) for name in ("client", "server"))
        yield Pair(client, server)


EVERYTHING: tuple[Row, ...] = (
    SourceAllow(service(4), ("10.0.0.0/8", "192.0.2.1/32", "192.0.2.8/29", "192.0.2.16/30")),
    SourceAllow(service(4, port=1), ("0.0.0.0/0",)),
    SourceAllow(service(4, port=2), ("10.0.0.0/9", "10.128.0.0/9")),
    SourceAllow(service(6), ("::/0",)),
    SourceAllow(service(6, "udp"), ("2001:db8:7::/48", "2001:db8:9::1/128")),
    SourceAllow(service(6, "sctp"), ()),
    SynLimit(service(4), 1000000, 1),
    SynLimit(service(6), 5, 5),
    PacketMark(service(4), 7),
    PacketMark(service(6, "udp"), 0xFFFFFFFF),
    MssClamp(VIP[4], 1436),
    MssClamp("198.51.100.2", 1436),
    MssClamp(VIP[6], 1396),
    TunnelGuard(4, 4, 0, ("192.0.2.137",)),
    TunnelGuard(6, 41, 0, ("2001:db8::137", "2001:db8::138", "2001:db8::139")),
    TunnelGuard(4, 47, 0, ("192.0.2.137", "192.0.2.138")),
    TunnelGuard(4, 17, 6080, ("192.0.2.137",)),
    TunnelGuard(6, 17, 6080, ("2001:db8::137",)),
)
FOREIGN = """
table inet other {
  chain input {
    type filter hook input priority 0; policy accept;
    meta mark 7 counter
  }
}
table ip lbnode {
  chain ours-by-name-only {
  }
}
"""


def test_what_is_written_is_what_is_read_and_the_tables_of_others_stay(pair: Pair) -> None:
    pair.nft("-f", "-", given=FOREIGN)
    foreign = pair.nft("list", "ruleset")
    pair.want(*EVERYTHING)
    pair.want(*EVERYTHING[:4])
    pair.want(*EVERYTHING)
    pair.want()
    assert pair.nft("list", "ruleset") == foreign


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        ("delete table inet lbnode", "+ "),
        ("flush chain inet lbnode input", "- filter-damage missing: rule of input"),
        ("insert rule inet lbnode input accept", '- filter-damage not ours: rule of input: [{"accept": null}]'),
        ("add rule inet lbnode output counter", '- filter-damage not ours: rule of output: ["counter"]'),
        ("add chain inet lbnode mine", "- filter-damage not ours: chain mine"),
        ("add set inet lbnode mine { type mark; }", "- filter-damage not ours: set mine"),
        ("delete element inet lbnode mark4 { 198.51.100.1 . tcp . 80 }", "+ packet-mark 198.51.100.1:80/tcp"),
        ("add table inet lbnode { flags dormant; }", "- filter-damage not ours: table lbnode"),
    ],
)
def test_damage_is_seen_and_repaired_in_one_pass(pair: Pair, damage: str, shown: str) -> None:
    pair.want(*EVERYTHING)
    pair.nft(damage)
    lines = str(pair.plan(EVERYTHING)).splitlines()
    assert any(line.startswith(shown) for line in lines), lines
    pair.want(*EVERYTHING)
    pair.want()


def test_nothing_is_run_while_nothing_changes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where no table is wanted nor where it is as it was: nft is not even there."""
    pair.want(*EVERYTHING)
    fresh = FilterDriver()
    monkeypatch.setenv("PATH", "/nowhere")
    assert not pair.plan(EVERYTHING)
    with pytest.raises(Missing, match=r"cannot read table inet lbnode: the program nft is not installed"):
        pair.server.call(lambda: fresh.observe([]))
    assert pair.client.call(lambda: fresh.observe([])).rows == ()
    (result,) = pair.client.call(lambda: fresh.apply(diff((), EVERYTHING[:1]).changes))
    assert result.error == "cannot write table inet lbnode: the program nft is not installed (package nftables)"


@BOTH
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_only_allowed_sources_get_through(pair: Pair, version: int, protocol: str) -> None:
    mine = service(version, protocol)
    pair.want(SourceAllow(mine, (f"{FRIEND[version]}/{32 if version == 4 else 128}",)))
    assert pair.reaches(FRIEND, version, protocol)
    assert not pair.reaches(OTHER, version, protocol)
    assert pair.reaches(OTHER, version, protocol, OPEN_PORT), "another port is another service"
    assert pair.reaches(OTHER, version, {"tcp": "udp", "udp": "tcp"}[protocol]), "and so is another protocol"
    assert pair.pings(OTHER, version), "ICMP goes through"
    pair.want(SourceAllow(mine, ()))
    assert not pair.reaches(FRIEND, version, protocol)
    pair.want()
    assert pair.reaches(OTHER, version, protocol)


@BOTH
def test_a_flood_of_syns_is_limited_and_an_old_flow_goes_on(pair: Pair, version: int) -> None:
    with pair.listen(version, "tcp") as listener, pair.open(pair.client, version, "tcp") as old:
        old.connect((VIP[version], PORT))
        served, _ = listener.accept()
        served.settimeout(LATE_S)
        pair.want(SynLimit(service(version), 5, 10))
        with ExitStack() as stack:
            began = time.monotonic()
            flood = [stack.enter_context(pair.open(pair.client, version, "tcp")) for _ in range(300)]
            for one in flood:
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.connect((VIP[version], PORT))
                old.send(b"?")
                assert served.recv(1) == b"?"
            seconds = time.monotonic() - began
            through = sum(_connected(one) for one in flood)
        assert 10 <= through <= 10 + 5 * seconds + 2 < 300, f"{through} of 300 in {seconds:.1f} s"
        assert pair.pings(OTHER, version)
        served.close()


def _connected(one: socket.socket) -> bool:
    with suppress(OSError):
        one.getpeername()
        return True
    return False


def _marked(pair: Pair, protocol: str) -> int:
    """How many packets of a protocol a counter of somebody else's has seen with mark 7, behind ours."""
    listing = json.loads(pair.nft("-j", "list", "chain", "inet", "other", "input"))
    rules = [item["rule"]["expr"] for item in listing["nftables"] if "rule" in item]
    return sum(
        statement["counter"]["packets"]
        for expr in rules
        if expr[0]["match"]["right"] == protocol
        for statement in expr
        if "counter" in statement
    )


COUNTERS = """
table inet other {
  chain input {
    type filter hook input priority 0; policy accept;
    meta l4proto tcp meta mark 7 counter
    meta l4proto icmp meta mark 7 counter
    meta l4proto ipv6-icmp meta mark 7 counter
  }
}
"""


@BOTH
def test_packets_and_the_errors_about_them_get_the_mark(pair: Pair, version: int) -> None:
    pair.nft("-f", "-", given=COUNTERS)
    pair.want(PacketMark(service(version), 7), PacketMark(service(version, "udp"), 8))
    assert pair.reaches(FRIEND, version, "tcp", OPEN_PORT)
    assert pair.reaches(FRIEND, version, "udp")
    assert _marked(pair, "tcp") == 0
    assert pair.reaches(FRIEND, version, "tcp")
    assert _marked(pair, "tcp") >= 2
    icmp = {4: "icmp", 6: "ipv6-icmp"}[version]
    before = _marked(pair, icmp)
    for port, protocol in ((OPEN_PORT, 6), (PORT, 17)):
        too_big(pair, version, port, protocol)
    too_big(pair, version, PORT, 6)
    wait_until(lambda: _marked(pair, icmp) > before, LATE_S, "a marked ICMP error")
    assert _marked(pair, icmp) == before + 1


def too_big(pair: Pair, version: int, port: int, protocol: int) -> None:
    """An ICMP error from the client's side about a packet from the VIP and this port."""
    ends = socket.inet_pton(FAMILY[version], VIP[version]) + socket.inet_pton(FAMILY[version], FRIEND[version])
    ports = struct.pack("!HHI", port, 4000, 1)
    if version == 4:
        inner = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 1, 0x4000, 64, protocol, 0) + ends + ports
        error = struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + inner
        number = socket.IPPROTO_ICMP
    else:
        inner = struct.pack("!IHBB", 6 << 28, 1460, protocol, 64) + ends + ports
        error = struct.pack("!BBHI", 2, 0, 0, 1400) + inner
        number = socket.IPPROTO_ICMPV6
    total = sum(struct.unpack(f"!{len(error) // 2}H", error))
    total = (total & 0xFFFF) + (total >> 16)
    error = error[:2] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + error[4:]
    with pair.client.call(lambda: socket.socket(FAMILY[version], socket.SOCK_RAW, number)) as sender:
        sender.sendto(error, (VIP[version], 0))


SYN_ACK, MAXSEG = 0x12, 2


def offered(pair: Pair, version: int) -> int:
    """The MSS in the SYN-ACK that reaches the client."""
    ethertype = {4: 0x0800, 6: 0x86DD}[version]
    header = {4: 14 + 20, 6: 14 + 40}[version]
    with (
        pair.client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))) as wire,
        pair.listen(version, "tcp"),
        pair.open(pair.client, version, "tcp") as client,
    ):
        wire.bind(("eth0", ethertype))
        wire.settimeout(LATE_S)
        client.connect((VIP[version], PORT))
        while True:
            segment = wire.recv(2000)[header:]
            if segment[13] == SYN_ACK:
                kind, length, mss = struct.unpack_from("!BBH", segment, 20)
                assert (kind, length) == (MAXSEG, 4)
                return int(mss)


@BOTH
def test_the_mss_that_clients_are_told_is_only_ever_lowered(pair: Pair, version: int) -> None:
    own = {4: 1460, 6: 1440}[version]
    assert offered(pair, version) == own
    pair.want(MssClamp(VIP[version], 1300), MssClamp({4: "198.51.100.2", 6: "2001:db8:5::2"}[version], 1200))
    assert offered(pair, version) == 1300
    pair.want(MssClamp(VIP[version], 9000))
    assert offered(pair, version) == own


def test_a_refusal_of_nft_is_told_and_the_old_table_stays(pair: Pair) -> None:
    pair.want(*EVERYTHING)
    wrong = SynLimit(ServiceKey(VIP[4], "tcp", 70000), 1, 1)
    (result,) = pair.server.call(lambda: pair.driver.apply(diff((), [wrong]).changes))
    assert result.error.startswith("cannot write table inet lbnode: nft says: ")
    assert not pair.plan(EVERYTHING)


def test_others_who_may_not_read_it_are_told(pair: Pair) -> None:
    assert shutil.which("setpriv")
    script = (
        "from lbnode.net.filter import FilterDriver\n"
        "from lbnode.resources import MssClamp\n"
        "print(FilterDriver().observe([]).rows)\n"
        "try: FilterDriver().observe([MssClamp('198.51.100.1', 1400)])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    argv = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups", sys.executable)
    said = subprocess.run((*argv, "-c", script), check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [
        "()",
        "NotPermitted cannot read table inet lbnode: that needs root (CAP_NET_ADMIN)",
    ]


TUNNEL = {4: Link("lb-ipip", "ipip", "192.0.2.2"), 6: Link("lb-ip6", "ip6tnl", "2001:db8::2")}
INSIDE = {4: socket.IPPROTO_IPIP, 6: socket.IPPROTO_IPV6}


def tunnelled(pair: Pair, version: int, outer: str) -> bool:
    """Whether a datagram to the VIP gets to a listener when it comes in a tunnel from this outer source."""
    source = {4: "203.0.113.200", 6: "2001:db8:7::200"}[version]
    ends = socket.inet_pton(FAMILY[version], source) + socket.inet_pton(FAMILY[version], VIP[version])
    datagram = struct.pack("!HHHH", 4000, PORT, 13, 0) + b"hello"
    if version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + ends
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    else:
        pseudo = ends + struct.pack("!II", len(datagram), 17) + datagram + b"\0"
        datagram = datagram[:6] + struct.pack("!H", checksum(pseudo)) + datagram[8:]
        header = struct.pack("!IHBB", 6 << 28, len(datagram), 17, 64) + ends
    own = {4: "192.0.2.2", 6: "2001:db8::2"}[version]
    raw = pair.client.call(lambda: socket.socket(FAMILY[version], socket.SOCK_RAW, INSIDE[version]))
    with pair.listen(version, "udp") as listener, raw as sender:
        listener.settimeout(SOON_S)
        sender.bind((outer, 0))
        sender.sendto(header + datagram, (own, 0))
        with suppress(TimeoutError):
            return listener.recvfrom(100)[0] == b"hello"
        return False


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


@BOTH
def test_a_forged_outer_source_does_not_get_through_the_tunnel(pair: Pair, version: int) -> None:
    links = LinkDriver()
    made = pair.server.call(lambda: links.apply(diff((), [TUNNEL[version]]).changes))
    assert [result.error for result in made] == [""]
    for name in ("all", "lb-ipip"):
        if version == 4:
            pair.server.run(("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0"), check=True)
    assert tunnelled(pair, version, OTHER[version]), "without a guard, whoever likes can send"
    pair.want(TunnelGuard(version, INSIDE[version], 0, (FRIEND[version],)))  # type: ignore[arg-type]
    assert tunnelled(pair, version, FRIEND[version])
    assert not tunnelled(pair, version, OTHER[version])
    assert pair.reaches(OTHER, version, "udp"), "what is not tunnelled goes through"
    pair.want()
    assert tunnelled(pair, version, OTHER[version])
