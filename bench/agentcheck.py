"""What does an agent check cost, and are all of a burst answered? lbnode's responder beside socat, which forks."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import proxy
from bench.figure import OURS, Figure

CHECKS, BURST = 2000, 200
SOCAT = "socat"
RESPONDER = """
import asyncio, sys, time
from pathlib import Path
from lbnode.agent.http import LOOPBACK
from lbnode.maintenance import files, responder
from lbnode.paths import Paths
from ipaddress import ip_address

paths = Paths(Path(sys.argv[1]))

async def main():
    def welcome(address):
        return any(ip_address(address) in network for network in LOOPBACK)
    server = await responder.serve(lambda: files.read(paths, "backend", time.time()).state, int(sys.argv[2]), welcome)
    await server.serve_forever()

asyncio.run(main())
"""
"""As in the agent: the files are read for every answer."""


def measure_here(rounds: int) -> list[Figure]:
    took: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for side, run in ((OURS, _ours), (SOCAT, _socat)):
            with tempfile.TemporaryDirectory() as name, run(Path(name), port := proxy.free_port()) as pids:
                proxy.wait(lambda port=port: proxy.listens(port))  # type: ignore[misc]
                for what, value in _measured(port, pids).items():
                    took.setdefault(what, {}).setdefault(side, []).append(value)
    units = {"processor time per check": "us", "one check after the other: time per check": "us"}
    return [
        Figure(f"agent-check: {what}", units.get(what, "count"), sides, where="host") for what, sides in took.items()
    ]


def _measured(port: int, pid: int) -> dict[str, float]:
    before, begin = _cpu(pid), time.monotonic()
    asyncio.run(_in_turn(port, CHECKS))
    took = time.monotonic() - begin
    cpu = _cpu(pid) - before
    answered = asyncio.run(_burst(port))
    return {
        "one check after the other: time per check": 1e6 * took / CHECKS,
        "processor time per check": 1e6 * cpu / CHECKS,
        f"answered within 4 s, of a burst of {BURST}": answered,
    }


async def _check(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await reader.readline()).startswith(b"up")
    finally:
        writer.close()


async def _in_turn(port: int, number: int) -> None:
    for _ in range(number):
        if not await _check(port):
            raise RuntimeError("cannot measure: a wrong answer")


async def _burst(port: int) -> float:
    async def one() -> bool:
        with suppress(OSError, TimeoutError):
            return await asyncio.wait_for(_check(port), 4)
        return False

    return float(sum(await asyncio.gather(*(one() for _ in range(BURST)))))


def _cpu(pid: int) -> float:
    """Seconds of the process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(argv: list[str]) -> Iterator[int]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _ours(folder: Path, port: int) -> Iterator[int]:
    (folder / "agent-check").write_text("up ready\n")
    with _process([sys.executable, "-c", RESPONDER, str(folder), str(port)]) as pid:
        yield pid


@contextmanager
def _socat(folder: Path, port: int) -> Iterator[int]:
    (folder / "agent-check").write_text("up ready\n")
    words = [f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"SYSTEM:cat {folder}/agent-check"]
    with _process(["socat", *words]) as pid:
        yield pid
