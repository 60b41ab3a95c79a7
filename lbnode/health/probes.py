"""Asking once: HTTP, TCP connection, agent-check line. Every outcome is a value; nothing raises.

A failure of this node (out of descriptors or memory, no route, no such source address) is told apart from a failure of
the target, because it says nothing about the target.

Probes carry MARK: the policy rule that ends a failed server's flows on this node takes unmarked packets alone, so that
its probes still reach the server and see it come back.
"""

import asyncio
import errno
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import aiohttp

from lbnode.errors import LbnodeError
from lbnode.health.state import DIRECT_MARK, Outcome, Probe
from lbnode.maintenance.state import parse

OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH}
AGENT_LINE_MAX = 512
MARK = DIRECT_MARK
SILENT = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT}
"""Nobody is there: no answer to ARP, to neighbour solicitation, to SYN."""
LATE = 0.1
"""A time-out noticed later than this share of it says that this process was starved, and nothing about the target."""


async def ask(probe: Probe, timeout_s: float, session: aiohttp.ClientSession) -> Outcome:
    """One outcome within `timeout_s` seconds. Who took the connection and said nothing more is slow, not silent."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    met = asyncio.Event()
    try:
        async with asyncio.timeout(timeout_s):
            if probe.kind == "http":
                return await _http(probe, session, met)
            if probe.kind == "tcp":
                return await _tcp(probe)
            return await _agent(probe, met)
    except TimeoutError:
        late = loop.time() - began - timeout_s
        if late > LATE * timeout_s:
            return Outcome(None, f"this node is too busy: it looked {late:.2g} s late")
        return Outcome(False, f"no answer within {timeout_s:g} s", silent=not met.is_set())
    except (OSError, aiohttp.ClientError) as error:
        number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
        text = errno.errorcode.get(number, "") if number else ""
        ok = None if number in OURS else False
        return Outcome(ok, text or str(error) or type(error).__name__, silent=number in SILENT)


def session() -> aiohttp.ClientSession:
    """A session for `ask`: a fresh connection for each probe, because an old one proves little."""

    async def connected(
        _session: aiohttp.ClientSession, context: Any, _: aiohttp.TraceConnectionCreateEndParams
    ) -> None:
        context.trace_request_ctx.set()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    connector = aiohttp.TCPConnector(force_close=True, limit=0, socket_factory=_for_http)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace])


def _marked(family: int) -> socket.socket:
    """A TCP socket of a probe. Without CAP_NET_ADMIN (or CAP_NET_RAW) it has no mark, and finds failed servers down."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    with suppress(PermissionError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    return made


def _for_http(info: tuple[Any, ...]) -> socket.socket:
    """As aiohttp wants it: from a row of getaddrinfo(3)."""
    return _marked(info[0])


async def _connect(probe: Probe) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    made = _marked(socket.AF_INET if ip_address(probe.address).version == 4 else socket.AF_INET6)
    try:
        await asyncio.get_running_loop().sock_connect(made, (probe.address, probe.port))
        return await asyncio.open_connection(sock=made, limit=AGENT_LINE_MAX)
    except BaseException:
        made.close()
        raise


async def _http(probe: Probe, session: aiohttp.ClientSession, met: asyncio.Event) -> Outcome:
    async with session.get(probe.id, allow_redirects=False, trace_request_ctx=met) as response:
        return Outcome(200 <= response.status < 400, f"HTTP {response.status}")


async def _tcp(probe: Probe) -> Outcome:
    _, writer = await _connect(probe)
    writer.close()
    return Outcome(True, "connected")


async def _agent(probe: Probe, met: asyncio.Event) -> Outcome:
    reader, writer = await _connect(probe)
    met.set()
    try:
        line = await reader.readline()
        state = parse(line.decode("utf-8", "replace"))
    except (ValueError, LbnodeError) as error:
        return Outcome(False, f"agent-check makes no sense: {error}")
    finally:
        writer.close()
    return Outcome(True, f"agent-check {state}", state)
