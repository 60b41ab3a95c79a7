"""How other lbnode processes on the node talk to the agent: one line of JSON each way over a unix socket.

{"ask": "status"}   ->  what the agent knows (see Agent.status)
{"ask": "wake"}     ->  {"ok": true}, and a pass begins
"""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from lbnode.errors import LbnodeError, NotPermitted, NotReady
from lbnode.paths import Paths

PATIENCE_S = 5.0
"""So long may a client take to ask, and so long to take the answer."""
BACKLOG = 1024
"""Connecting to a unix socket with a full queue fails at once."""
LINE_MAX = 16 * 1024 * 1024
NOT_UNDERSTOOD = {"error": 'cannot understand: send one line such as {"ask": "status"}'}


async def serve(paths: Paths, answers: dict[str, Callable[[], dict[str, Any]]]) -> asyncio.Server:
    """Listens; only root and the socket's group may connect. A stale socket of an agent that died is replaced."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
            reply = _reply(line, answers)
        except (TimeoutError, ValueError):  # ValueError: a line without an end
            reply = NOT_UNDERSTOOD
        except OSError:
            writer.transport.abort()
            return
        writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), PATIENCE_S)
        except (TimeoutError, OSError):
            writer.transport.abort()

    paths.agent_socket.parent.mkdir(parents=True, exist_ok=True)
    paths.agent_socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(connected, paths.agent_socket, backlog=BACKLOG)
    paths.agent_socket.chmod(0o660)
    return server


def _reply(line: bytes, answers: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, Any]:
    try:
        answer = answers[json.loads(line)["ask"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return NOT_UNDERSTOOD
    try:
        return answer()
    except LbnodeError as error:
        return {"error": str(error)}


def listens(paths: Paths) -> bool:
    """Whether an agent is there, be it busy or hung: the kernel takes the connection for it."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(paths.agent_socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def ask(paths: Paths, what: str, timeout_s: float = 5.0) -> dict[str, Any] | None:
    """The agent's answer, or None when no agent is running. Raises NotReady when one runs and does not answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(str(paths.agent_socket))
            client.sendall(json.dumps({"ask": what}).encode() + b"\n")
            with client.makefile("rb") as lines:
                reply: dict[str, Any] = json.loads(lines.readline(LINE_MAX))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except PermissionError as error:
            raise NotPermitted(f"cannot talk to the agent at {paths.agent_socket}: not permitted") from error
        except (OSError, ValueError) as error:
            raise NotReady(f"cannot get an answer from the agent at {paths.agent_socket}: {error}") from error
    if "error" in reply:
        raise NotReady(f"cannot get an answer from the agent: {reply['error']}")
    return reply
