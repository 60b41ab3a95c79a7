"""The classifier in a real kernel: what it sends on, where to, and above all what it leaves alone."""

import random
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from classified import L4, ME, STRANGER, VIP, Answer, Classified, classified, flow, generation, server
from tunnelled import ACK, ETHERNET, FIN, ICMP, PSH, RST, SYN, TCP, Flow, checksum, inner, ip, outer, tcp

from lbnode import maglev
from lbnode.chance import bpf
from lbnode.chance.layout import candidates
from lbnode.resources import ChanceEndpoint, ServiceKey

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
PACKETS = 100_000
HEADER = {b"\x08\x00": 20, b"\x86\xdd": 40}
KNOWN = {version: {server(number, version) for number in range(2, 200)} for version in (4, 6)}
STAYS_ALONE = Answer(None, "alone")


@pytest.fixture
def kernel() -> Iterator[Classified]:
    with classified() as made:
        yield made


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def ports_of(generation_: object, number: int, version: int, count: int = 1) -> list[int]:
    """Client ports whose flows that generation gives to a server."""
    table = generation_.table  # type: ignore[attr-defined]
    source = flow(version).client
    found = []
    for port in range(20000, 60000):
        target = maglev.lookup(table, source, port).server
        if target is not None and target.address == server(number, version):
            found.append(port)
            if len(found) == count:
                break
    return found


def test_a_flow_of_before_goes_to_the_server_that_had_it(kernel: Classified, version: int) -> None:
    """Server 1, this one, was added; the flow began when 2 had its slot."""
    now, before = generation(version, [2, 3, 4, 1]), generation(version, [2, 3, 4])
    kernel.learn([now, before], version)
    port = next(p for p in ports_of(now, 1, version, 500) if p in ports_of(before, 2, version, 20000))
    sent = flow(version, port)
    assert kernel.ask(sent.packet(b"GET /")) == Answer((server(2, version), 64), "forwarded")
    found = bpf.run(kernel.program, sent.packet(b"GET /"))
    assert inner(found.data) == inner(sent.packet(b"GET /"))
    assert kernel.ask(sent.error()) == Answer((server(2, version), 64), "forwarded")
    assert kernel.ask(sent.but(flags=FIN | ACK).packet()).reason == "forwarded"
    assert kernel.ask(sent.but(flags=RST).packet()).reason == "forwarded"


def test_a_syn_stays(kernel: Classified, version: int) -> None:
    kernel.learn([generation(version, [2, 3])], version)
    for flags in (SYN, SYN | PSH, SYN | ACK):
        assert kernel.ask(flow(version).but(flags=flags).packet(b"data")) == Answer(None, "new")


def test_two_hops_and_no_more(kernel: Classified, version: int) -> None:
    """Contradicting tables on purpose: each server would send it on to another."""
    kernel.learn([generation(version, [2]), generation(version, [3]), generation(version, [4])], version)
    first = flow(version)
    assert kernel.ask(first.packet()) == Answer((server(2, version), 64), "forwarded")
    from_two = first.but(sender=server(2, version))
    assert kernel.ask(from_two.packet()) == Answer((server(3, version), 32), "forwarded-again")
    assert kernel.ask(from_two.but(ttl=33).packet()).reason == "forwarded-again"
    for ttl in (32, 20, 1):
        assert kernel.ask(from_two.but(ttl=ttl).packet()) == Answer(None, "two-hops")
        assert kernel.ask(from_two.but(ttl=ttl).error()) == Answer(None, "two-hops")


def test_it_goes_back_to_nobody(kernel: Classified, version: int) -> None:
    kernel.learn([generation(version, [2])], version)
    assert kernel.ask(flow(version).but(sender=server(2, version)).packet()) == STAYS_ALONE


def test_strangers_are_not_served(kernel: Classified, version: int) -> None:
    kernel.learn([generation(version, [2, 3])], version)
    assert kernel.ask(flow(version).but(sender=STRANGER[version]).packet()) == Answer(None, "stranger")
    assert kernel.ask(flow(version).but(sender=STRANGER[version]).error()) == Answer(None, "stranger")


def test_a_failed_server_is_blank_in_all_generations(kernel: Classified, version: int) -> None:
    both = [generation(version, [2]), generation(version, [3])]
    kernel.learn(both, version, [server(2, version)])
    assert kernel.ask(flow(version).packet()).to == (server(3, version), 64)
    kernel.learn(both, version, [server(2, version), server(3, version)])
    assert kernel.ask(flow(version).packet()) == STAYS_ALONE


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_what_the_tables_say(kernel: Classified, version: int, seed: int) -> None:
    """Random generations with servers added, drained and weighted, against the tables in Python, one by one."""
    chosen = random.Random(seed)  # noqa: S311
    generations = []
    numbers = list(range(1, 8))
    for _ in range(12):
        if chosen.random() < 0.4:
            numbers = [*numbers, max(numbers) + 1] if chosen.random() < 0.6 else numbers[1:]
        down = chosen.sample(range(len(numbers)), chosen.choice([0, 1, 1, 2, 4]))
        weights = [chosen.choice([100, 100, 50]) for _ in numbers] if chosen.random() < 0.2 else ()
        generations.append(generation(version, numbers, sorted(down), weights))
    failed = [server(numbers[-1], version)]
    kernel.learn(generations, version, failed)
    for _ in range(400):
        sent = flow(version, chosen.randrange(1024, 65536), chosen.randrange(1, 250))
        found = [address for address, _ in candidates(generations, failed, sent.client, sent.port)]
        others = [address for address in found if address != ME[version]]
        assert kernel.ask(sent.packet()).to == ((others[0], 64) if others else None)
        if others:
            rest = others[1:]
            again = kernel.ask(sent.but(sender=others[0]).packet())
            assert again.to == ((rest[0], 32) if rest else None)


def test_by_address_alone(kernel: Classified, version: int) -> None:
    kernel.put(ChanceEndpoint(ServiceKey(VIP[version], "tcp", 80), 0 if version == 4 else 1, by_port=False))
    some = generation(version, [2, 3, 4, 5])
    kernel.learn([some], version)
    table = maglev.build(some.structure.servers, 6 if version == 6 else 4, flags=["mh-fallback"])
    for client in range(1, 60):
        expected = maglev.lookup(table, flow(version, client=client).client, 0).server
        assert expected is not None
        assert kernel.ask(flow(version, 1000 + client, client).packet()).to == (expected.address, 64)


def test_the_largest_cluster_in_the_longest_restart(kernel: Classified) -> None:
    """190 servers, each drained once: of every flow the two places it can be at are known."""
    numbers = list(range(2, 192))
    generations = [generation(4, numbers), *(generation(4, numbers, [place]) for place in range(len(numbers)))]
    kernel.learn(generations, 4)
    for port in range(30000, 30030):
        found = [address for address, _ in candidates(generations, (), flow(4).client, port)]
        assert len(found) == 2
        assert kernel.ask(flow(4, port).packet()).to == (found[0], 64)
        assert kernel.ask(flow(4, port).but(sender=found[0]).packet()).to == (found[1], 32)


def command(text: str) -> None:
    subprocess.run(text.split(), check=True, capture_output=True)


class Listener:
    """A service on this node, VIP and port 80; its clients' addresses are behind a device that swallows everything."""

    def __init__(self, version: int, stack: ExitStack) -> None:
        bits, clients = (128, "2001:db8:9::/64") if version == 6 else (32, "203.0.113.0/24")
        command("ip link add swallows type dummy")
        command("ip link set swallows up")
        command(f"ip -{version} address add {VIP[version]}/{bits} dev swallows{' nodad' * (version == 6)}")
        command(f"ip -{version} route add {clients} dev swallows")
        self.family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self.vip = VIP[version]
        self.listening = stack.enter_context(socket.socket(self.family, socket.SOCK_STREAM))
        self.listening.bind((self.vip, 80))
        self.listening.listen(8)
        self._stack = stack

    def connected(self) -> socket.socket:
        """A client on this machine, whose address is the VIP's too."""
        made = self._stack.enter_context(socket.socket(self.family, socket.SOCK_STREAM))
        made.connect((self.vip, 80))
        return made

    def half_open(self, client: str, port: int) -> int:
        """Sends a SYN by hand, from elsewhere. Returns the sequence number of the SYN-ACK."""
        segment = bytearray(tcp(port, 80, SYN, 0))
        ends = socket.inet_pton(self.family, client) + socket.inet_pton(self.family, self.vip)
        struct.pack_into(">H", segment, 16, checksum(ends + struct.pack(">II", len(segment), TCP) + bytes(segment)))
        packet = ip(client, self.vip, TCP, bytes(segment))
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as seen,
            socket.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        ):
            seen.bind(("swallows", 3))
            seen.settimeout(10)
            raw.sendto(packet, (self.vip, 0))
            while True:
                answer = seen.recv(4096)
                head = answer[40 if answer[0] >> 4 == 6 else 20 :]
                if answer[0] >> 4 in (4, 6) and head[:4] == struct.pack(">HH", 80, port) and head[13] == SYN | ACK:
                    return int(struct.unpack_from(">I", head, 4)[0])


@pytest.fixture
def listener(kernel: Classified, version: int) -> Iterator[Listener]:
    """All candidates are elsewhere."""
    with ExitStack() as stack:
        made = Listener(version, stack)
        kernel.learn([generation(version, [2, 3])], version)
        yield made


def of(listener: Listener, version: int, port: int) -> Flow:
    return flow(version, port).but(client=listener.vip)


def test_a_flow_that_has_a_socket_stays(kernel: Classified, version: int, listener: Listener) -> None:
    port = listener.connected().getsockname()[1]
    accepted, _ = listener.listening.accept()
    with accepted:
        for flags in (ACK, PSH | ACK, FIN | ACK, RST, RST | ACK):
            assert kernel.ask(of(listener, version, port).but(flags=flags).packet()) == Answer(None, "socket")
        assert kernel.ask(of(listener, version, port).error()) == Answer(None, "socket")


def test_a_listener_alone_is_no_home(kernel: Classified, version: int, listener: Listener) -> None:
    assert kernel.ask(of(listener, version, 50000).packet()).reason == "forwarded"
    assert kernel.ask(of(listener, version, 50000).error()).reason == "forwarded"


def test_time_wait_stays(kernel: Classified, version: int, listener: Listener) -> None:
    """The side that closes first has it: here the server's."""
    client = listener.connected()
    port = client.getsockname()[1]
    accepted, _ = listener.listening.accept()
    accepted.close()
    assert client.recv(1) == b""
    client.close()
    listed = Path("/proc/self/net/tcp6" if version == 6 else "/proc/self/net/tcp").read_text()
    assert any(line.split()[3] == "06" and line.split()[2].endswith(f":{port:04X}") for line in listed.splitlines()[1:])
    assert kernel.ask(of(listener, version, port).packet()) == Answer(None, "socket")


def test_a_valid_cookie_stays_and_a_wrong_one_does_not(kernel: Classified, version: int, listener: Listener) -> None:
    """With cookies there is no request socket: the ACK alone says that a connection is being opened here. A kernel
    whose IPv6 is a module cannot check cookies of that family for us (net/core/filter.c, bpf_tcp_check_syncookie)."""
    Path("/proc/sys/net/ipv4/tcp_syncookies").write_text("2")
    sent = flow(version)
    cookie = listener.half_open(sent.client, sent.port)
    is_module = Path("/sys/module/ipv6/initstate").exists()
    expected = "forwarded" if version == 6 and is_module else "cookie"
    assert kernel.ask(sent.packet(acknowledged=cookie + 1 & 0xFFFFFFFF)).reason == expected
    assert kernel.ask(sent.packet(acknowledged=cookie + 12345 & 0xFFFFFFFF)).reason == "forwarded"
    assert kernel.ask(sent.but(flags=RST | ACK).packet(acknowledged=cookie + 1 & 0xFFFFFFFF)).reason == "forwarded"


def test_a_half_open_connection_stays(kernel: Classified, version: int, listener: Listener) -> None:
    """A request socket: the SYN was answered, the ACK has not come."""
    Path("/proc/sys/net/ipv4/tcp_syncookies").write_text("0")
    sent = flow(version)
    listener.half_open(sent.client, sent.port)
    assert kernel.ask(sent.packet()) == Answer(None, "socket")


def test_other_packets_are_left_alone(kernel: Classified, version: int) -> None:
    kernel.learn([generation(version, [2, 3])], version)
    sent = flow(version)
    nothing = Answer(None, "")
    assert kernel.ask(sent.but(vip_port=81).packet()) == nothing
    assert kernel.ask(sent.but(vip=STRANGER[version]).packet()) == nothing
    assert kernel.ask(sent.but(real_server=server(9, version)).packet()) == nothing
    assert kernel.ask(sent.wrapped(ip(sent.client, sent.vip, 17, tcp(1, 80)))) == nothing
    assert kernel.ask(sent.packet()[:ETHERNET] + inner(sent.packet())) == nothing  # not in a tunnel
    assert kernel.ask(sent.packet()[:12] + b"\x08\x06" + bytes(60)) == nothing


def test_fragments_stay(kernel: Classified) -> None:
    kernel.learn([generation(4, [2, 3])], 4)
    sent = flow(4)
    for fragment in (0x2000, 0x2010, 0x0010):
        body = tcp(sent.port, 80)
        assert kernel.ask(sent.wrapped(ip(sent.client, sent.vip, TCP, body, fragment=fragment))) == Answer(None, "odd")
        split = ip(sent.sender, sent.real_server, 4, ip(sent.client, sent.vip, TCP, body), 64, fragment)
        assert kernel.ask(sent.packet()[:ETHERNET] + split) == Answer(None, "odd")


def test_errors_about_others_stay(kernel: Classified, version: int) -> None:
    kernel.learn([generation(version, [2, 3])], version)
    sent = flow(version)
    assert kernel.ask(sent.error(8 if version == 4 else 128)) == Answer(None, "")  # echo
    about_other = sent.but(vip=STRANGER[version]).error()
    readdressed = (
        sent.wrapped(ip("203.0.113.9", sent.vip, ICMP, about_other[ETHERNET + 40 :])) if version == 4 else None
    )
    if readdressed:
        assert kernel.ask(readdressed) == Answer(None, "")


def test_nothing_else_is_ever_sent_on(kernel: Classified) -> None:
    """Random, cut and twisted packets: what is sent on is a flow to one of the VIPs, from a machine we know, to another
    real server that we know, with nothing but the outer header changed."""
    kernel.learn([generation(4, [2, 3, 1]), generation(4, [4, 5])], 4)
    kernel.learn([generation(6, [2, 3, 1]), generation(6, [4, 5])], 6)
    chosen = random.Random(20190322)  # noqa: S311
    ran = sent_on = 0
    while ran < PACKETS:
        packet = _odd(chosen)
        if len(packet) < ETHERNET + HEADER.get(packet[12:14], 1):
            with pytest.raises(OSError, match="Invalid argument"):  # the kernel lets no such packet so far
                bpf.run(kernel.program, packet)
            continue
        found = bpf.run(kernel.program, packet)
        ran += 1
        if found.answer == -1:
            assert found.data == packet
            continue
        sent_on += 1
        assert found.answer == 7
        _is_ours(packet, found.data)
    assert sent_on > PACKETS / 100
    told = kernel.counters()
    assert told["forwarded"] + told["forwarded-again"] == sent_on


def _odd(chosen: random.Random) -> bytes:
    version = chosen.choice([4, 6])
    sender = chosen.choice([L4[version], server(3, version), STRANGER[version]])
    sent = flow(version, chosen.randrange(65536), chosen.randrange(1, 255)).but(
        sender=sender, flags=chosen.randrange(64), ttl=chosen.choice([64, 40, 32, 10])
    )
    packet = bytearray(sent.packet(chosen.randbytes(20)) if chosen.random() < 0.6 else sent.error())
    way = chosen.random()
    if way < 0.3:
        del packet[chosen.randrange(ETHERNET + 1, len(packet)) :]
    elif way < 0.8:
        for _ in range(chosen.randrange(1, 4)):
            packet[chosen.randrange(12, len(packet))] = chosen.randrange(256)
    elif way < 0.9:
        packet[ETHERNET:] = chosen.randbytes(chosen.randrange(1, 120))
    return bytes(packet)


def _is_ours(packet: bytes, made: bytes) -> None:
    version = 6 if packet[12:14] == b"\x86\xdd" else 4
    assert packet[12:14] == (b"\x08\x00" if version == 4 else b"\x86\xdd")
    sender, target, ttl = outer(packet) if version == 6 else _outer_unchecked(packet)
    assert target == ME[version]
    assert sender == L4[version] or (sender in KNOWN[version] and ttl > 32)
    source, onward, hops = outer(made)
    assert source == ME[version]
    assert onward in {server(number, version) for number in (2, 3, 4, 5)} - {sender}
    assert hops == (64 if sender == L4[version] else 32)
    assert inner(made) == inner(packet)
    body = inner(packet)
    head = 40 if version == 6 else (body[0] & 15) * 4
    protocol = body[6] if version == 6 else body[9]
    vip = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, VIP[version])
    assert (body[24:40] if version == 6 else body[16:20]) == vip
    if protocol == TCP:
        assert body[head + 2 : head + 4] == b"\0\x50"
        assert not body[head + 13] & SYN
    else:
        assert protocol == (58 if version == 6 else ICMP)
        about = body[head + 8 :]
        assert (about[8:24] if version == 6 else about[12:16]) == vip
        at = 40 if version == 6 else (about[0] & 15) * 4
        assert about[at : at + 2] == b"\0\x50"


def _outer_unchecked(packet: bytes) -> tuple[str, str, int]:
    head = packet[ETHERNET : ETHERNET + 20]
    return socket.inet_ntoa(head[12:16]), socket.inet_ntoa(head[16:20]), head[8]
