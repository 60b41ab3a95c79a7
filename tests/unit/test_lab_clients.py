"""The lab's clients against small real servers on loopback: what they count as whole, and what as broken."""

import asyncio
import re
from contextlib import asynccontextmanager

import pytest

from lbnode.lab import web
from lbnode.lab.clients import http
from lbnode.lab.clients.crowd import mix, pairs
from lbnode.lab.clients.flows import FILE_BYTES, Flow
from lbnode.lab.clients.worker import Worker

WHOLE = web.content(0, FILE_BYTES)


@asynccontextmanager
async def serving(answer):
    """A server on loopback that calls `answer(target, body, writer)` per request; yields its port."""

    tasks = []

    async def connected(reader, writer):
        tasks.append(asyncio.current_task())
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

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reply(body, length=None):
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\nX-Backend: s1\r\nContent-Length: {size}\r\n\r\n".encode() + body


async def whole(target, body, writer):
    bodies = {"/": b"s1\n", "/upload": b"%d\n" % len(body)}
    writer.write(reply(bodies.get(target, WHOLE)))
    await writer.drain()
    return True


async def flow_through(answer, kind):
    """One flow, told to finish as soon as it has begun."""
    async with serving(answer) as port:
        flow = Flow(kind, "127.0.0.1", "127.0.0.1", 0.01, port)
        task = asyncio.create_task(flow.run())
        await flow.begun.wait()
        flow.finishing.set()
        await task
        return flow


@pytest.mark.parametrize("kind", ["download", "upload", "requests"])
def test_a_flow_that_is_left_alone_ends_whole(kind):
    flow = asyncio.run(flow_through(whole, kind))
    assert (flow.broken, flow.rounds >= 1, flow.ended) == ("", True, True)
    assert flow.moved >= (1 if kind == "requests" else FILE_BYTES)


def test_a_reset_in_the_middle_breaks_a_download():
    async def half(target, body, writer):
        writer.write(reply(WHOLE[:1000], FILE_BYTES))
        await writer.drain()
        return False

    flow = asyncio.run(flow_through(half, "download"))
    assert re.match("receive: |closed by", flow.broken)


def test_one_wrong_byte_breaks_a_download():
    async def wrong(target, body, writer):
        writer.write(reply(WHOLE[:5000] + b"\xff" + WHOLE[5001:]))
        await writer.drain()
        return True

    assert asyncio.run(flow_through(wrong, "download")).broken.startswith("wrong bytes at ")


def test_a_server_that_missed_bytes_breaks_an_upload():
    async def fewer(target, body, writer):
        writer.write(reply(f"{len(body) - 1}\n".encode()))
        await writer.drain()
        return True

    flow = asyncio.run(flow_through(fewer, "upload"))
    assert flow.broken == f"status 200, {FILE_BYTES - 1} of {FILE_BYTES} bytes arrived"


def test_silence_is_called_stalled(monkeypatch):
    async def silent(target, body, writer):
        await asyncio.Event().wait()

    monkeypatch.setattr(http, "PATIENCE_S", 0.05)
    assert asyncio.run(flow_through(silent, "requests")).broken == "receive: nothing for 0.05 s"


def test_a_flow_that_does_not_end_in_time_is_reported():
    async def scenario():
        async def silent(target, body, writer):
            writer.write(reply(WHOLE[:10], FILE_BYTES))
            await asyncio.Event().wait()

        async with serving(silent) as port:
            worker = Worker()
            await worker.start("group", [Flow("download", "127.0.0.1", "127.0.0.1", 0.01, port)])
            return await worker.do_finish("group", 0.1)

    (report,) = asyncio.run(scenario())
    assert report["broken"] == "not finished after 0.1 s"


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
    assert {(kind, vip): sum(f[0] == kind and f[2] == vip for f in flows) for kind, _, vip in flows} == dict.fromkeys(
        [(kind, vip) for vip in vips for kind in ("download", "upload")], 10
    )
