"""A process that answers at the agent-check port, or at the control socket, as the agent does; for test_agent_ports.

    python tests/unit/answering.py port
    python tests/unit/answering.py socket FOLDER

It prints where it listens, and ends with its standard input; a non-zero status says that something was not handled.
"""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

from lbnode.agent import control
from lbnode.maintenance import responder
from lbnode.maintenance.state import READY
from lbnode.paths import Paths


async def main(kind: str, folder: str = "") -> bool:
    """Until told to end; whether all went well."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    if kind == "port":
        server = await responder.serve(lambda: READY, 0)
        where = next(str(one.getsockname()[1]) for one in server.sockets if one.family == socket.AF_INET)
    else:
        paths = Paths(Path(folder), Path(folder))
        server = await control.serve(paths, {"status": lambda: {"well": True}})
        where = str(paths.agent_socket)
    sys.stdout.write(f"{where}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    for context in unhandled:
        sys.stderr.write(f"{context}\n")
    return not unhandled


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(*sys.argv[1:])))
