"""What does a second chance cost a packet that needs none, and what does a new table cost?

The classifier runs on the kernel where the bench was called, by BPF_PROG_TEST_RUN, beside a program that does nothing:
no device is touched, and the time is the kernel's own. *Warm* is one flow over and over; *cold* goes round a thousand
flows, so that their sockets are no longer near. The connections are real ones, over loopback.
"""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench import clock
from bench.figure import OURS, Figure
from lbnode import maglev
from lbnode.chance import bpf, layout, program
from lbnode.chance.driver import entry_of
from lbnode.chance.generations import Generation
from lbnode.maglev import Server
from lbnode.resources import ChanceEndpoint, ChanceOwn, ChancePeer, ServiceKey

REPEAT = 1_000_000
FLOWS = 1000
VIP, OWN, L4 = "127.0.0.1", "192.0.2.1", "192.0.2.250"
ACK, SYN = 16, 2
EMPTY = struct.pack("<BBhi", 0xB7, 0, 0, -1) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = TC_ACT_UNSPEC; exit


def measure_here(rounds: int) -> list[Figure]:
    """Needs root, for bpf(2)."""
    with _classifier() as (loaded, empty, port, clients):
        home = [_packet(client, port, ACK) for client in clients]
        away = [_packet(client, port, ACK) for client in range(1, FLOWS)]
        kinds: list[tuple[str, Callable[[int], float], float]] = [
            ("that has a socket, warm", partial(_warm, packet=home[0]), 200.0),
            (f"that has a socket, cold: {FLOWS:,} flows in turn", partial(_single, packets=home), 0.0),
            ("that is a SYN, warm", partial(_warm, packet=_packet(1, port, SYN)), 0.0),
            ("in no tunnel, warm", partial(_warm, packet=home[0][:14] + home[0][34:]), 0.0),
            (f"that is sent on, {FLOWS:,} flows in turn", partial(_single, packets=away), 0.0),
        ]
        figures = [
            Figure(f"classifier: a packet {what}", "ns", {OURS: [take(loaded) for _ in range(rounds)]}, goal, "host")
            for what, take, goal in kinds
        ]
        for what, take, _ in kinds[:2]:
            bare = [take(empty) for _ in range(rounds)]
            figures.append(Figure(f"an empty program instead: a packet {what}", "ns", {OURS: bare}, 0, "host"))
    return [*figures, *_tables(rounds)]


def _tables(rounds: int) -> list[Figure]:
    """After one drain: from the generations to the kernel's table, at the size of a small and of a large cluster."""
    figures = []
    for count in (13, 200):
        packing, pushing = [], []
        for number in range(rounds):
            generations = _generations(count, number)
            packing.append(clock.milliseconds(partial(layout.pack, generations)))
            pushing.append(clock.milliseconds(partial(_push, layout.pack(generations))))
        what = f"a new table of {count} real servers, {count + 1} generations"
        figures.append(Figure(f"{what}: work it out", "ms", {OURS: packing}, 0, "host"))
        figures.append(Figure(f"{what}: into the kernel", "ms", {OURS: pushing}, 0, "host"))
        figures.append(Figure(f"{what}: memory", "kB", {OURS: [layout.BYTES / 1000] * rounds}, 0, "host"))
    return figures


def _push(content: bytes) -> None:
    table = bpf.create("table", program.built()[0].maps["table"])
    bpf.write_array(table, content, layout.ROW)
    os.close(table)


def _generations(count: int, salt: int = 0) -> list[Generation]:
    """As in the middle of a rolling restart. `salt`: so that nothing has been worked out before."""
    servers = [Server(f"10.{salt}.{number // 200}.{number % 200 + 1}", 80, 100, 100) for number in range(count)]
    structure = maglev.build(servers, 4)
    return [Generation(structure), *(Generation(structure, (number,)) for number in range(count))]


def _warm(loaded: int, packet: bytes) -> float:
    return float(bpf.run(loaded, packet, REPEAT).ns)


def _single(loaded: int, packets: list[bytes]) -> float:
    """The mean of single runs: each has the cost of reading the clock in it, as the empty program's has."""
    return sum(bpf.run(loaded, packet).ns for packet in packets) / len(packets)


@contextmanager
def _classifier() -> Iterator[tuple[int, int, int, list[int]]]:
    """The classifier, the empty program, a port that listens and the ports of its clients."""
    loaded, maps = program.load_only()
    with ExitStack() as stack:
        for descriptor in (loaded, *maps.values()):
            stack.callback(os.close, descriptor)
        empty = bpf.load("empty", EMPTY, b"GPL")
        stack.callback(os.close, empty)
        listening = stack.enter_context(socket.socket())
        listening.bind((VIP, 0))
        listening.listen(FLOWS)
        port = int(listening.getsockname()[1])
        clients = []
        for _ in range(FLOWS):
            client = stack.enter_context(socket.create_connection((VIP, port)))
            stack.enter_context(listening.accept()[0])
            clients.append(int(client.getsockname()[1]))
        table = bpf.create("table", program.built()[0].maps["table"])
        stack.callback(os.close, table)
        bpf.write_array(table, layout.pack(_generations(13)), layout.ROW)
        bpf.update(maps["groups"], bytes(4), table.to_bytes(4, "little"))
        for row in (ChanceEndpoint(ServiceKey(VIP, "tcp", port), 0), ChancePeer(L4, "l4"), ChanceOwn(4, OWN)):
            entry = entry_of(row)
            bpf.update(maps[entry.map], entry.key, entry.value)
        yield loaded, empty, port, clients


def _packet(client: int, port: int, flags: int) -> bytes:
    """From a client on this machine to the VIP, in a tunnel from the L4 node."""
    segment = struct.pack(">HHIIBBHHH", client, port, 1, 1, 5 << 4, flags, 8192, 0, 0) + bytes(32)
    inner = _ip(VIP, VIP, 6, segment)
    return bytes(12) + b"\x08\x00" + _ip(L4, OWN, 4, inner)


def _ip(source: str, target: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(target) + body
