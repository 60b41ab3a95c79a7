"""Asking once: HTTP, TCP connection, agent-check line, program. Every outcome is a value; nothing raises.

A failure of this node says nothing about the target, and is told apart: out of descriptors or memory, no such source
address, no way out, no carrier, no time, a program that cannot be started.

Direct probes carry DIRECT_MARK: the policy rule that ends a failed server's flows on this node takes unmarked packets
alone, so that they still reach the server and see it come back.
"""

import asyncio
import errno
from types import TracebackType
from typing import Self

from lbnode.errors import LbnodeError
from lbnode.health import script
from lbnode.health.carrier import Links
from lbnode.health.http import Web
from lbnode.health.sockets import OURS, Attempt, Ports, Unable, connect, most_at_once, words
from lbnode.health.state import Outcome, Probe
from lbnode.maintenance.state import parse

AGENT_LINE_MAX = 512
SILENT = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ETIMEDOUT}
"""Nobody is there: no answer to ARP, to neighbour solicitation, to SYN; or a router says so."""
LATE = 0.1
"""A time-out noticed later than this share of it says that this process was starved, and nothing about the target."""


class Client:
    """What probes share, and how many may run at once. To be made in a running event loop, and closed."""

    def __init__(self) -> None:
        self.ports = Ports()
        self.web = Web(self.ports)
        self.links = Links()
        self.connections = asyncio.Semaphore(most_at_once())
        self.scripts = asyncio.Semaphore(script.AT_ONCE)

    async def close(self) -> None:
        await self.web.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def ask(probe: Probe, timeout_s: float, client: Client) -> Outcome:
    """One outcome, `timeout_s` seconds after its turn has come at the latest."""
    async with client.scripts if probe.kind == "script" else client.connections:
        return await _ask(Attempt(probe), timeout_s, client)


async def _ask(attempt: Attempt, timeout_s: float, client: Client) -> Outcome:
    """Who took the connection and said nothing more is slow, not silent."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        if attempt.probe.kind == "script":
            return await script.run(attempt.probe, timeout_s)
        async with asyncio.timeout(timeout_s):
            return await _connect_and_ask(attempt, client)
    except TimeoutError:
        late = loop.time() - began - timeout_s
        if late > LATE * timeout_s:
            return Outcome(None, f"this node is too busy: it looked {late:.2g} s late")
        silent = attempt.probe.kind != "script" and not attempt.met
        outcome = Outcome(False, f"no answer within {timeout_s:g} s", silent=silent)
    except Unable as error:
        return Outcome(None, str(error))
    except MemoryError:
        return Outcome(None, words(OSError(errno.ENOMEM, "")))
    except OSError as error:
        outcome = failure(error)
    device = client.links.lost(attempt.source, loop.time()) if outcome.silent else ""
    return Outcome(None, f"{device} has no carrier") if device else outcome


def failure(error: OSError) -> Outcome:
    """What an error of a connection means: this node's fault, nobody there, or the word of a live target."""
    number = error.errno or 0
    if number in OURS:
        return Outcome(None, words(error))
    return Outcome(False, errno.errorcode.get(number) or str(error) or type(error).__name__, silent=number in SILENT)


async def _connect_and_ask(attempt: Attempt, client: Client) -> Outcome:
    if attempt.probe.kind in ("http", "https"):
        return await client.web.ask(attempt)
    with await connect(attempt, client.ports) as made:
        if attempt.probe.kind == "tcp":
            return Outcome(True, "connected")
        line = b""
        while b"\n" not in line and len(line) <= AGENT_LINE_MAX:
            chunk = await asyncio.get_running_loop().sock_recv(made, AGENT_LINE_MAX)
            if not chunk:
                break
            line += chunk
    return _agent(line)


def _agent(line: bytes) -> Outcome:
    if len(line) > AGENT_LINE_MAX:
        return Outcome(False, f"agent-check makes no sense: more than {AGENT_LINE_MAX} bytes")
    try:
        state = parse(line.partition(b"\n")[0].decode("utf-8", "replace"))
    except LbnodeError as error:
        return Outcome(False, f"agent-check makes no sense: {error}")
    return Outcome(True, f"agent-check {state}", state)
