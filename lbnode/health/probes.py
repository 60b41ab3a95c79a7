"""Asking once: HTTP, TCP connection, agent-check line. Every outcome is a value; nothing raises.

A failure of this node (out of descriptors or memory, no route, no such source address) is told apart from a failure of
the target, because it says nothing about the target.
"""

import asyncio
import errno

import aiohttp

from lbnode.errors import LbnodeError
from lbnode.health.state import Outcome, Probe
from lbnode.maintenance.state import parse

OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH}
AGENT_LINE_MAX = 512
LATE = 0.1
"""A time-out noticed later than this share of it says that this process was starved, and nothing about the target."""


async def ask(probe: Probe, timeout_s: float, session: aiohttp.ClientSession) -> Outcome:
    """One outcome within `timeout_s` seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(timeout_s):
            if probe.kind == "http":
                return await _http(probe, session)
            if probe.kind == "tcp":
                return await _tcp(probe)
            return await _agent(probe)
    except TimeoutError:
        late = loop.time() - began - timeout_s
        if late > LATE * timeout_s:
            return Outcome(None, f"this node is too busy: it looked {late:.2g} s late")
        return Outcome(False, f"no answer within {timeout_s:g} s")
    except (OSError, aiohttp.ClientError) as error:
        number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
        text = errno.errorcode.get(number, "") if number else ""
        return Outcome(None if number in OURS else False, text or str(error) or type(error).__name__)


def session() -> aiohttp.ClientSession:
    """A session for `ask`: a fresh connection for each probe, because an old one proves little."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def _http(probe: Probe, session: aiohttp.ClientSession) -> Outcome:
    url = probe.id
    async with session.get(url, allow_redirects=False) as response:
        return Outcome(200 <= response.status < 400, f"HTTP {response.status}")


async def _tcp(probe: Probe) -> Outcome:
    _, writer = await asyncio.open_connection(probe.address, probe.port)
    writer.close()
    return Outcome(True, "connected")


async def _agent(probe: Probe) -> Outcome:
    reader, writer = await asyncio.open_connection(probe.address, probe.port, limit=AGENT_LINE_MAX)
    try:
        line = await reader.readline()
        state = parse(line.decode("utf-8", "replace"))
    except (ValueError, LbnodeError) as error:
        return Outcome(False, f"agent-check makes no sense: {error}")
    finally:
        writer.close()
    return Outcome(True, f"agent-check {state}", state)
