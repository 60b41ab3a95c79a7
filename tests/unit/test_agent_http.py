"""The agent's site: who may ask, what is answered, and that nobody can hold it up. Real sockets on loopback."""

import asyncio
import json
import socket

import cluster
import pytest

from lbnode.agent import http
from lbnode.agent.http import Guests, Page, Site
from lbnode.errors import Missing


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("192.0.2.137", True),
        ("192.0.2.194", True),
        ("2001:db8:c000:280::e1", True),
        ("192.0.2.139", False),
        ("198.51.100.1", False),  # a VIP is nobody's own address
        ("203.0.113.9", True),
        ("203.0.113.128", False),
        ("2001:db8:9::9%eth0", True),
        ("", False),
        ("nonsense", False),
    ],
)
def test_who_may_ask(address, may):
    allow = "metrics: {allow: [203.0.113.0/25, '2001:db8:9::/48']}\n"
    found = cluster.small("pools:", allow + "pools:")
    assert (address in Guests(found, found.metrics.allow)) == may


def fail(_query):
    raise Missing("cannot use IPVS: it is not there")


PAGES = {
    "/echo": lambda query: Page(json.dumps(query).encode(), "application/json"),
    "/fail": fail,
    "/big": lambda _query: Page(b"x" * 5_000_000),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def of_port(port):
    return cluster.small("pools:", f"metrics: {{port: {port}}}\npools:")


def visited(scenario):
    """What `scenario(port)` gives while a site listens on that port."""

    async def run():
        site, port = Site("s1", PAGES), free_port()
        assert await site.follow(of_port(port)) == ""
        try:
            return await scenario(port)
        finally:
            await site.close()

    return asyncio.run(run())


async def ask(port, text, host="127.0.0.1"):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(text.encode())
    try:
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    writer.close()
    return answer.decode("latin-1")


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: node\r\n\r\n"


@pytest.mark.parametrize(
    ("request_text", "status", "body"),
    [
        (get("/echo?service=%5B2001:db8::1%5D:80/tcp&x=1&x=2"), 200, '{"service": "[2001:db8::1]:80/tcp", "x": "2"}'),
        (get("/echo"), 200, "{}"),
        (get("/fail"), 503, "cannot use IPVS: it is not there\n"),
        (get("/"), 404, "no such page; there is /echo, /fail, /big\n"),
        (get("//[/echo"), 404, "no such page; there is /echo, /fail, /big\n"),
        (get("/echo").replace("GET", "POST"), 405, "cannot do that: this site is read-only\n"),
        ("nonsense\r\n\r\n", 400, "cannot understand the request\n"),
        ("GET \xff HTTP/1.1\r\n\r\n", 400, "cannot understand the request\n"),
        ("GET /" + "x" * 20_000, 400, "cannot understand the request\n"),
    ],
)
def test_answers(request_text, status, body):
    answer = visited(lambda port: ask(port, request_text))
    head, _, text = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert f"Content-Length: {len(body)}" in head
    assert text == body


def test_both_families_of_loopback_and_a_whole_big_page():
    async def scenario(port):
        return [len(await ask(port, get("/big"), host)) for host in ("127.0.0.1", "::1")]

    assert all(size > 5_000_000 for size in visited(scenario))


def test_a_stranger_is_not_answered(monkeypatch):
    monkeypatch.setattr(http, "LOOPBACK", ())
    assert visited(lambda port: ask(port, get("/echo"))) == ""


def test_who_says_nothing_or_reads_nothing_is_closed_and_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(http, "PATIENCE_S", 0.3)
    monkeypatch.setattr(http, "CONNECTIONS", 4)

    async def scenario(port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        idle[0][1].write(get("/big").encode())  # and never reads more than fits into the buffers
        while await ask(port, get("/echo")):  # noqa: ASYNC110 - the fifth is closed, once the four have been taken
            await asyncio.sleep(0)
        ended = [await reader.read(1) for reader, _ in idle[1:]]
        for _, writer in idle:
            writer.close()
        while not (answer := await ask(port, get("/echo"))):  # noqa: ASYNC110 - until the four have been closed
            await asyncio.sleep(0)
        return ended, answer

    ended, answer = visited(lambda port: asyncio.wait_for(scenario(port), 20))
    assert ended == [b"", b"", b""]
    assert answer.startswith("HTTP/1.1 200 OK")


def test_a_taken_port_is_told_and_taken_again_when_it_is_free():
    async def scenario():
        site = Site("s1", PAGES)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            told = await site.follow(of_port(port))
        again = await site.follow(of_port(port))
        answer = await ask(port, get("/echo"))
        off = await site.follow(of_port(0))
        with pytest.raises(ConnectionRefusedError):
            await ask(port, get("/echo"))
        await site.close()
        return port, told, again, answer, off

    port, told, again, answer, off = asyncio.run(scenario())
    assert told == f"cannot listen on 127.0.0.1 port {port}: address already in use"
    assert (again, off) == ("", "")
    assert answer.startswith("HTTP/1.1 200 OK")
