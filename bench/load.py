"""A client at a steady pace: half of its requests on kept connections, half on new ones; it tells what went wrong.

python -m bench.load ADDRESS PORT PER_SECOND    until its standard input ends; then one line of JSON
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from statistics import quantiles

KEPT = 40
"""So many connections are kept at most; each waits for its turn, idle."""
DEADLINE_S = 5.0
REQUEST = b"GET / HTTP/1.1\r\nHost: bench.example.com\r\n%s\r\n"


class Kept:
    """One kept connection; `told` says that the last answer announced its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.told = reader, writer, False

    @property
    def gone(self) -> bool:
        return self.reader.at_eof() or self.reader.exception() is not None

    def close(self) -> None:
        self.writer.close()


class Load:
    """Counts: `good`, `failed: WHY`, and kept connections `closed without notice`."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.counts: Counter[str] = Counter()
        self.took: list[float] = []
        self.idle: deque[Kept] = deque()

    async def fresh(self) -> None:
        await self._ask(await self._connect(), b"Connection: close\r\n", keep=False)

    async def kept(self) -> None:
        """On the connection that has been idle for longest; a new one as long as there are too few."""
        while len(self.idle) >= KEPT:
            connection = self.idle.popleft()
            if not connection.gone:
                await self._ask(connection, b"", keep=True)
                return
            self.counts["closed without notice"] += not connection.told
            connection.close()
        await self._ask(await self._connect(), b"", keep=True)

    async def _connect(self) -> Kept:
        return Kept(*await asyncio.open_connection(self.address, self.port))

    async def _ask(self, connection: Kept, header: bytes, keep: bool) -> None:
        connection.writer.write(REQUEST % header)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        if " 200 " not in lines[0]:
            raise OSError(f"status {lines[0].split()[1]}")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        await connection.reader.readexactly(length)
        connection.told = "connection: close" in lines
        if keep and not connection.told:
            self.idle.append(connection)
        else:
            connection.close()

    async def one(self, number: int) -> None:
        begin = time.monotonic()
        try:
            await asyncio.wait_for(self.kept() if number % 2 else self.fresh(), DEADLINE_S)
        except (OSError, EOFError, TimeoutError) as error:
            self.counts[f"failed: {type(error).__name__ if not str(error).startswith('status') else error}"] += 1
        else:
            self.counts["good"] += 1
            self.took.append(1000 * (time.monotonic() - begin))


async def run(address: str, port: int, per_s: int) -> dict[str, object]:
    load, loop = Load(address, port), asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    tasks: set[asyncio.Task[None]] = set()
    begin, number = loop.time(), 0
    while not ended.done():
        task = asyncio.create_task(load.one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        await asyncio.sleep(max(0.0, begin + number / per_s - loop.time()))
    await asyncio.gather(*tasks)
    for connection in load.idle:
        connection.close()
        with suppress(OSError):
            await connection.writer.wait_closed()
    return {"counts": dict(load.counts), "p99": quantiles(load.took, n=100)[98], "requests": number}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
