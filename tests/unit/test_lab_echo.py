"""The echo server of a lab's backends, and the flows by UDP that find out when it is another one."""

import os
import socket
import time
from contextlib import closing, suppress

import pytest

from lbnode.lab.clients.datagrams import ANSWER_S
from lbnode.lab.clients.engine import Engine
from lbnode.lab.clients.flows import Flow
from lbnode.lab.clients.worker import Worker
from lbnode.lab.echo import Server

HERE = {4: "127.0.0.1", 6: "::1"}
DEADLINE_S = 20.0


class Servers:
    """Echo servers, moved in turns with an engine, in this one thread."""

    def __init__(self, *servers):
        self.servers = list(servers)

    def until(self, engine, condition, deadline_s=DEADLINE_S):
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                return False
            for server in self.servers:
                server.turn(0.0)
            engine.turn(0.001)
        return True


def flow_to(port, version=4, tick_s=0.005):
    return Flow("datagrams", HERE[version], HERE[version], tick_s, port)


def serving(kind=Server):
    """Not on a port that the kernel gives to clients, for some tests close it and open it again."""
    for port in range(20000 + os.getpid() % 5000, 30000):
        with suppress(OSError):
            return kind("s1", port)
    raise AssertionError("no free port")


@pytest.fixture
def server():
    with closing(serving()) as made:
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_every_datagram_is_answered_by_the_same_server(server, version):
    flow, engine = flow_to(server.port, version), Engine()
    engine.rouse([flow])
    assert Servers(server).until(engine, lambda: flow.rounds >= 5)
    flow.finishing = True
    assert Servers(server).until(engine, lambda: flow.ended)
    assert (flow.broken, flow.backend, flow.other, flow.lost, flow.unanswered) == ("", "s1", "", 0, {})
    assert flow.moved > flow.rounds * len("s1 ")


@pytest.mark.parametrize("version", [4, 6])
def test_answers_come_from_the_address_that_was_asked(server, version):
    """As from a VIP, which is not the one that the way back would choose."""
    asked = {4: "127.0.0.77", 6: "::1"}[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.sendto(b"one two", (asked, server.port))
        server.turn(DEADLINE_S)
        answer, (source, *_) = client.recvfrom(100)
    assert source == asked
    name, _, words = answer.decode().split(" ", 2)
    assert (name, words) == ("s1", "one two")


@pytest.mark.parametrize(
    ("name", "why"), [("s2", "answered by s2, instead of s1"), ("s1", "answered by s1, started anew")]
)
def test_another_server_breaks_the_flow_and_so_does_the_same_one_started_anew(server, name, why):
    flow, engine = flow_to(server.port), Engine()
    engine.rouse([flow])
    assert Servers(server).until(engine, lambda: flow.rounds >= 2)
    port = server.port
    server.close()
    with closing(Server(name, port)) as other:
        assert Servers(other).until(engine, lambda: flow.ended)
    assert (flow.broken, flow.backend, flow.other) == (why, "s1", name)


def test_a_datagram_that_is_refused_breaks_it_even_in_a_pause(server):
    flow, engine = flow_to(server.port, tick_s=0.05), Engine()
    engine.rouse([flow])
    assert Servers(server).until(engine, lambda: flow.rounds >= 2)
    server.close()
    assert engine.until(lambda: flow.ended, DEADLINE_S)
    assert flow.broken in ("receive: Connection refused", "send: Connection refused")
    assert not flow.other


@pytest.fixture
def silent():
    """A socket that takes datagrams, and a flow that has sent it some and waits for answers only for moments."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind((HERE[4], 0))
        there.settimeout(DEADLINE_S)
        flow = flow_to(there.getsockname()[1])
        flow.connection.patience_s = 0.1
        yield there, flow, Engine()


def test_silence_breaks_it_when_patience_ends_and_all_is_lost(silent):
    _, flow, engine = silent
    engine.rouse([flow])
    assert engine.until(lambda: flow.ended, DEADLINE_S)
    assert flow.broken == "receive: nothing for 0.1 s"
    assert flow.lost == len(flow.unanswered) >= 1
    assert flow.stall_s >= 0.1
    assert flow.rounds == 0


def test_an_answer_that_is_lost_or_late_is_counted_exactly(silent, monkeypatch):
    """Of three datagrams the first gets no answer, the second a late one, the third two."""
    monkeypatch.setattr("lbnode.lab.clients.datagrams.ANSWER_S", 0.05)
    there, flow, engine = silent
    flow.connection.patience_s = DEADLINE_S
    engine.rouse([flow])
    assert engine.until(lambda: len(flow.unanswered) == 3, DEADLINE_S)
    client = there.recvfrom(100)[1]
    for number in (2, 3, 3):
        there.sendto(b"s1 life %d" % number, client)
    assert engine.until(lambda: flow.rounds == 2, DEADLINE_S)
    engine.drop([flow])
    assert {1} <= set(flow.unanswered) <= {1, 4, 5}
    assert flow.broken == ""
    assert flow.stall_s >= 0.1


def test_what_waits_for_its_answer_is_not_lost_yet(silent):
    _, flow, engine = silent
    flow.connection.patience_s = DEADLINE_S
    engine.rouse([flow])
    assert engine.until(lambda: flow.unanswered, DEADLINE_S)
    assert flow.lost == 0
    flow.unanswered[1] -= ANSWER_S
    assert flow.lost == 1
    engine.drop([flow])


def test_meeting_waits_for_an_answer_to_a_later_datagram(server):
    worker = Worker()
    flow = flow_to(server.port, tick_s=1000.0)
    worker.groups["group"] = [flow]
    worker.engine.rouse([flow])
    assert Servers(server).until(worker.engine, lambda: flow.resting)
    assert worker.do_meet("group", 0.0) == 1
    assert Servers(server).until(worker.engine, lambda: flow.rounds == 2)
    assert worker.do_meet("group", 0.0, [0]) == 0
    worker.engine.drop([flow])


def ask(server, words=b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"):
    client = socket.create_connection((HERE[4], server.port))
    client.settimeout(DEADLINE_S)
    client.sendall(words)
    return client


def turn_until(server, condition):
    end = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < end:
        server.turn(0.05)
    return condition()


class Deaf(Server):
    """One that answers no datagram until it is told to."""

    asked = 0
    answers = False

    def _echo(self):
        self.asked += 1
        if self.answers:
            super()._echo()


def test_a_health_check_is_answered_once_a_datagram_has_come_back():
    with closing(serving(Deaf)) as server, ask(server) as client:
        assert turn_until(server, lambda: server.asked > 3)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1000)
        server.answers = True
        assert turn_until(server, lambda: not server._checks)
        client.setblocking(True)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_health_check_that_gives_up_leaves_nothing_behind(server):
    before = len(server._selector.get_map())
    ask(server, b"GET").close()
    ask(server).close()
    assert turn_until(server, lambda: len(server._selector.get_map()) > before)
    assert turn_until(server, lambda: len(server._selector.get_map()) == before)
    assert server._checks == {}
