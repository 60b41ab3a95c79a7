"""The lab's clients against small real servers on loopback: what they count as whole, and what as broken."""

import asyncio
import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from lbnode.lab import web
from lbnode.lab.clients import http
from lbnode.lab.clients.crowd import mix, pairs
from lbnode.lab.clients.engine import Engine
from lbnode.lab.clients.flows import BODY_BYTES, FILES, Flow, file_bytes
from lbnode.lab.clients.worker import Worker

FILE_BYTES = FILES[-1]
WHOLE = web.content(0, FILE_BYTES)
HERE = "127.0.0.1"
DEADLINE_S = 20.0


@contextmanager
def serving(answer):
    """A server on loopback, in a thread, that calls `answer(target, body, writer)` per request; yields its port."""

    tasks = set()
    started = threading.Event()
    known = {}

    async def connected(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = re.search(r"Content-Length: (\d+)", head)
                body = await reader.readexactly(int(size[1])) if size else b""
                if not await answer(head.split()[1], body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def serve():
        known["loop"], known["stop"] = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(connected, HERE, 0)
        async with server:
            known["port"] = server.sockets[0].getsockname()[1]
            started.set()
            await known["stop"].wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(DEADLINE_S)
    try:
        yield known["port"]
    finally:
        known["loop"].call_soon_threadsafe(known["stop"].set)
        thread.join()


def reply(body, length=None):
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\nX-Backend: s1\r\nContent-Length: {size}\r\n\r\n".encode() + body


async def whole(target, body, writer):
    bodies = {"/": b"s1\n", "/upload": b"%d\n" % len(body)}
    writer.write(reply(bodies[target] if target in bodies else WHOLE[: int(target.rpartition("/")[2])]))
    await writer.drain()
    return True


async def silent(target, body, writer):
    await asyncio.Event().wait()


async def stuck(target, body, writer):
    """Begins well."""
    writer.write(reply(WHOLE[:10], FILE_BYTES))
    await asyncio.Event().wait()


def flow_to(port, kind, tick_s=0.01):
    return Flow(kind, HERE, HERE, tick_s, port)


def flow_through(answer, kind):
    """One flow, told to finish as soon as it has begun."""
    with serving(answer) as port:
        flow, engine = flow_to(port, kind), Engine()
        engine.rouse([flow])
        assert engine.until(lambda: flow.begun, DEADLINE_S)
        flow.finishing = True
        assert engine.until(lambda: flow.ended, DEADLINE_S)
        return flow


@pytest.mark.parametrize("kind", ["download", "upload", "requests"])
def test_a_flow_that_is_left_alone_ends_whole(kind):
    flow = flow_through(whole, kind)
    assert (flow.broken, flow.rounds >= 1, flow.ended) == ("", True, True)
    assert flow.moved >= {"requests": 1, "download": FILE_BYTES, "upload": BODY_BYTES}[kind]


def test_a_reset_in_the_middle_breaks_a_download():
    async def half(target, body, writer):
        writer.write(reply(WHOLE[:1000], FILE_BYTES))
        await writer.drain()
        return False

    began = time.monotonic()
    flow = flow_through(half, "download")
    assert re.match("receive: |closed by", flow.broken)
    assert began < flow.broken_at < time.monotonic()


def test_one_wrong_byte_breaks_a_download():
    async def wrong(target, body, writer):
        writer.write(reply(WHOLE[:5000] + b"\xff" + WHOLE[5001:]))
        await writer.drain()
        return True

    assert flow_through(wrong, "download").broken.startswith("wrong bytes at ")


def test_a_server_that_missed_bytes_breaks_an_upload():
    async def fewer(target, body, writer):
        writer.write(reply(f"{len(body) - 1}\n".encode()))
        await writer.drain()
        return True

    flow = flow_through(fewer, "upload")
    assert flow.broken == f"status 200, {BODY_BYTES - 1} of {BODY_BYTES} bytes arrived"


def test_silence_is_called_stalled(monkeypatch):
    monkeypatch.setattr(http, "PATIENCE_S", 0.05)
    assert flow_through(silent, "requests").broken == "receive: nothing for 0.05 s"


def test_who_does_not_listen_any_more_breaks_an_upload(monkeypatch):
    """Its kernel takes what is sent until its buffer is full."""
    monkeypatch.setattr(http, "PATIENCE_S", 0.2)
    with socket.create_server((HERE, 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        flow, engine = flow_to(server.getsockname()[1], "upload"), Engine()
        engine.rouse([flow])
        assert engine.until(lambda: flow.ended, DEADLINE_S)
    assert re.fullmatch(r"send: nothing (acknowledged )?for 0\.2 s", flow.broken)


def test_a_reset_between_two_ticks_is_noticed_at_once():
    with socket.create_server((HERE, 0)) as server:
        flow, engine = flow_to(server.getsockname()[1], "download", 1000.0), Engine()
        size = file_bytes(flow.tick_s)
        engine.rouse([flow])
        assert not engine.until(lambda: flow.begun, 0.05)
        there, _ = server.accept()
        with there:
            there.sendall(reply(WHOLE[: size // 2], size))
            assert engine.until(lambda: flow.resting, DEADLINE_S)
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert engine.until(lambda: flow.ended, DEADLINE_S)
    assert flow.broken == "receive: Connection reset by peer"


def test_short_requests_count_what_failed_and_go_on():
    """Nobody listens at first, and then somebody does."""
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
    flow, engine = flow_to(port, "short"), Engine()
    engine.rouse([flow])
    assert engine.until(lambda: len(flow.failures) >= 3, DEADLINE_S)
    at, client_port, reason = flow.failures[0]
    assert (reason, client_port > 0, at > 0, flow.broken) == ("connect: Connection refused", True, True, "")
    with serving(whole) as port:
        flow.vip_port = port
        assert engine.until(lambda: flow.rounds >= 3, DEADLINE_S)
    engine.drop([flow])
    assert flow.ended


def test_a_flow_that_does_not_end_in_time_is_reported():
    with serving(stuck) as port:
        worker = Worker()
        worker.start("group", [flow_to(port, "download")])
        (report,) = worker.do_finish("group", 0.1)
    assert report["broken"] == "not finished after 0.1 s"


@pytest.mark.parametrize("kind", ["download", "upload", "requests"])
def test_meeting_waits_for_an_answer_to_something_sent_later(kind):
    """The flows' next ticks are far away: they are hurried."""
    with serving(whole) as port:
        worker = Worker()
        flows = [flow_to(port, kind, 1000.0) for _ in range(100)]
        worker.start("group", flows)
        now = time.monotonic()
        assert all(flow.proven < now for flow in flows)
        assert worker.do_meet("group", DEADLINE_S) == 0
        assert all(flow.proven >= now for flow in flows)
        reports = worker.do_finish("group", DEADLINE_S)
    assert not [report for report in reports if report["broken"] or not report["rounds"]]


def test_meeting_counts_who_has_not():
    with serving(stuck) as port:
        worker = Worker()
        worker.start("group", [flow_to(port, "download") for _ in range(3)])
        assert worker.do_meet("group", 0.2) == 3
        assert worker.do_meet("group", 0.2, but=[0, 2]) == 1
        assert worker.do_count("group")["flows"] == 3
        worker.do_finish("group", 0.0)


@pytest.mark.parametrize(("tick_s", "size"), [(0.01, 65536), (1.0, 65536), (5.0, 16384), (25.0, 4096), (1000.0, 4096)])
def test_a_file_is_read_before_its_connection_looks_idle(tick_s, size):
    assert file_bytes(tick_s) == size


def test_contents_fit_together():
    assert web.content(0, 100) + web.content(100, 1000) == web.content(0, 1000)
    assert len(web.content(251, 251 + 7)) == 7
    assert web.content(251, 260) == web.content(0, 9)


def test_pairs_keep_to_one_family():
    assert pairs(["198.51.100.1", "2001:db8::1"], ["203.0.113.1", "2001:db8::2"]) == [
        ("203.0.113.1", "198.51.100.1"),
        ("2001:db8::2", "2001:db8::1"),
    ]


def test_a_mix_is_even_over_kinds_and_vips_and_the_same_every_time():
    vips, sources = ["198.51.100.1", "2001:db8::1"], ["203.0.113.1", "203.0.113.2", "2001:db8::2"]
    flows = mix(40, ("download", "upload"), vips, sources)
    assert flows == mix(40, ("download", "upload"), vips, sources)
    evenly = dict.fromkeys([(kind, vip) for vip in vips for kind in ("download", "upload")], 10)
    assert Counter((kind, vip) for kind, _, vip, _ in flows) == evenly
    assert {port for *_, port in flows} == {80}
