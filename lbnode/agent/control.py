"""How other lbnode processes on the node talk to the agent: one line of JSON each way over a unix socket.

{"ask": "status"}   ->  what the agent knows (see Agent.status)
{"ask": "wake"}     ->  {"ok": true}, and a pass begins
"""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lbnode.errors import LbnodeError, NotPermitted, NotReady
from lbnode.paths import Paths

LINE_MAX = 16 * 1024 * 1024


async def serve(paths: Paths, answers: dict[str, Callable[[], dict[str, Any]]]) -> asyncio.Server:
    """Listens; only root and the socket's group may connect. A stale socket of an agent that died is replaced."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # who asks may be gone
            try:
                line = await asyncio.wait_for(reader.readline(), 5)
                reply = answers[json.loads(line)["ask"]]()
            except (TimeoutError, ValueError, KeyError, TypeError, RecursionError):
                reply = {"error": 'cannot understand: send one line such as {"ask": "status"}'}
            except LbnodeError as error:
                reply = {"error": str(error)}
            writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()

    paths.agent_socket.parent.mkdir(parents=True, exist_ok=True)
    paths.agent_socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(connected, paths.agent_socket)
    paths.agent_socket.chmod(0o660)
    return server


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
    return reply
