"""Rise and fall, and real probes against real sockets."""

import asyncio
import socket
import time
from contextlib import ExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.health.monitor import Monitor, Pace, probe_once
from lbnode.health.state import Health, Outcome, Probe, step
from lbnode.maintenance.state import Mode, parse


def walk(text, rise=2, fall=3, health=None):
    """`+` a success, `-` a failure, `?` could not ask; returns the row of `up` as the same signs."""
    health, seen = health or Health(), ""
    for sign in text:
        health = step(health, Outcome({"+": True, "-": False, "?": None}[sign], sign), rise, fall)
        seen += {True: "+", False: "-", None: "?"}[health.up]
    return seen


@pytest.mark.parametrize(
    ("outcomes", "up"),
    [
        ("+", "+"),
        ("-", "?"),
        ("---", "??-"),
        ("-?-+", "???+"),
        ("+--+--", "++++++"),
        ("+---", "+++-"),
        ("----+-++", "??-----+"),
        ("+--?-", "++++-"),
        ("????", "????"),
        ("+????????", "+++++++++"),
    ],
)
def test_rise_two_fall_three(outcomes, up):
    assert walk(outcomes) == up


@given(st.text("+-?", max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_a_health_turns_only_after_a_run_against_it(outcomes, rise, fall):
    seen = walk(outcomes, rise, fall)
    for place in range(1, len(seen)):
        if seen[place] != seen[place - 1] and seen[place - 1] != "?":
            run = outcomes[: place + 1].replace("?", "")
            needed = rise if seen[place] == "+" else fall
            assert run.endswith(seen[place] * needed)


def test_a_silent_agent_check_keeps_the_last_word():
    said = step(Health(), Outcome(True, "", parse("drain")), 1, 1)
    assert step(said, Outcome(False, "refused"), 1, 1).admin.mode is Mode.DRAIN


@pytest.mark.parametrize(
    "health",
    [Health(True, "HTTP 200", parse("75% # disks")), Health(False, "no answer within 1 s", None, silent=True)],
)
def test_health_travels_as_json(health):
    assert Health.from_json(health.as_json()) == health


def silence(text, health=None):
    """`+` a success, `-` a failure that answered, `.` silence; returns whether it is held to be silent, after each."""
    health, seen = health or Health(), ""
    for sign in text:
        health = step(health, Outcome(sign == "+", sign, silent=sign == "."), 2, 3)
        seen += "s" if health.silent else "-"
    return seen


@pytest.mark.parametrize(
    ("outcomes", "silent"),
    [
        ("...", "--s"),
        ("+....", "---ss"),
        ("+---...", "------s"),
        ("+---..-..", "---------"),
        ("+...-", "---s-"),
        ("+...++", "---s--"),
        ("+..-...", "------s"),
    ],
)
def test_one_lost_probe_does_not_make_a_server_silent(outcomes, silent):
    assert silence(outcomes) == silent


@asynccontextmanager
async def serving(answer):
    async def connected(reader, writer):
        if answer.startswith(b"HTTP"):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("kind", "line", "up", "reason"),
    [
        ("http", b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", True, "HTTP 200"),
        ("http", b"HTTP/1.0 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", True, "HTTP 302"),
        ("http", b"HTTP/1.0 503 No\r\ncontent-length: 0\r\n\r\n", False, "HTTP 503"),
        ("tcp", b"", True, "connected"),
        ("agent", b"up drain 100%\n", True, "agent-check drain"),
        ("agent", b"hello\n", False, "agent-check makes no sense"),
    ],
)
def test_a_probe_finds(kind, line, up, reason):
    async def scenario():
        async with serving(line) as port:
            probe = Probe(kind, "127.0.0.1", port, "/healthcheck" if kind == "http" else "")
            return (await probe_once([probe], 2.0))[probe]

    health = asyncio.run(scenario())
    assert health.up is up
    assert health.reason.startswith(reason)


def starve():
    """Holds the loop past the time-out, as a machine does that has no time for this process."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass


def test_a_probe_that_this_node_was_too_busy_for_says_nothing():
    async def scenario():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        probe = Probe("http", "127.0.0.1", server.sockets[0].getsockname()[1], "/")
        asyncio.get_running_loop().call_later(0.05, starve)
        found = (await probe_once([probe], 0.1))[probe]
        server.close()
        await server.wait_closed()
        return found

    health = asyncio.run(scenario())
    assert health.up is None
    assert "this node is too busy" in health.reason


def test_a_refused_and_a_silent_target_are_down_but_a_missing_route_is_unknown():
    async def scenario():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        quiet, refused = Probe("http", "127.0.0.1", port, "/"), Probe("tcp", "127.0.0.1", 1)
        found = await probe_once([quiet, refused], 0.2)
        server.close()
        await server.wait_closed()
        return found[quiet], found[refused]

    quiet, refused = asyncio.run(scenario())
    assert (quiet.up, quiet.reason, quiet.silent) == (False, "no answer within 0.2 s", False), "it took the connection"
    assert (refused.up, refused.reason, refused.silent) == (False, "ECONNREFUSED", False)


@pytest.mark.parametrize("kind", ["http", "tcp", "agent"])
def test_who_does_not_even_take_the_connection_is_silent(kind):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as queue:
            for _ in range(3):  # nobody accepts: the kernel drops the SYNs that come after
                waiting = queue.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            probe = Probe(kind, "127.0.0.1", full.getsockname()[1], "/" if kind == "http" else "")
            return (await probe_once([probe], 0.2, fall=2))[probe]

    health = asyncio.run(scenario())
    assert (health.up, health.reason, health.silent) == (False, "no answer within 0.2 s", True)


def test_the_monitor_says_when_something_turns():
    async def scenario():
        turned = asyncio.Event()
        monitor = Monitor(turned.set)
        async with serving(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n") as port:
            probe = Probe("http", "127.0.0.1", port, "/")
            await monitor.follow([probe], Pace(0.02, 1, 2, 2))
            await asyncio.wait_for(monitor.settled(), 5)
            up = monitor.health[probe]
            turned.clear()
        await asyncio.wait_for(turned.wait(), 5)
        down = monitor.health[probe]
        await monitor.close()
        return up, down

    up, down = asyncio.run(scenario())
    assert up.up is True
    assert down.up is False
