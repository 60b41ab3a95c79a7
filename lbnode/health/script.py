"""Asking by a program of the operator's: exit status 0 means up, any other down.

It is run without a shell, in a session of its own, so that when it ends, or its time does, everything it has started
goes with it. A program that cannot be started is this node's fault and says nothing about the target.
"""

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from typing import IO, cast

from lbnode.health.sockets import Unable, words
from lbnode.health.state import Outcome, Probe

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = 1024
"""Bytes of output that are kept; the rest is read and dropped."""
SHOWN = 200
AT_ONCE = 16
BURIAL_S = 0.5
"""How long to wait for a killed program: the kernel may hold on to one."""


async def run(probe: Probe, timeout_s: float) -> Outcome:
    """Raises Unable when the program cannot be started, TimeoutError after `timeout_s` seconds; then it is killed."""
    program = _Program(probe)
    try:
        await asyncio.wait([program.ended], timeout=timeout_s)
        if not program.ended.done():
            raise TimeoutError
    finally:
        if not program.ended.done():
            program.kill()
            await asyncio.wait([program.ended], timeout=BURIAL_S)
    return program.outcome()


def environment(probe: Probe) -> dict[str, str]:
    """All that the program is told. What goes through the tunnel needs SO_MARK and the source."""
    return {
        "PATH": PATH,
        "LBNODE_ADDRESS": probe.address,
        "LBNODE_PORT": str(probe.port),
        "LBNODE_FAMILY": "6" if ":" in probe.address else "4",
        "LBNODE_MARK": str(probe.mark),
        "LBNODE_SOURCE": probe.source,
    }


class _Program:
    """One run. `ended` is done once the program has been waited for, be it after `run` gave up."""

    def __init__(self, probe: Probe) -> None:
        self._loop = asyncio.get_running_loop()
        self._said = b""
        self.ended: asyncio.Future[None] = self._loop.create_future()
        try:
            self._process = _start(probe)
        except OSError as error:
            raise Unable(f"{probe.script}: {words(error)}") from error
        self._output = cast("IO[bytes]", self._process.stdout)
        os.set_blocking(self._output.fileno(), False)
        try:
            self._watch = os.pidfd_open(self._process.pid)
        except OSError as error:
            self.kill()
            self._process.wait()
            self._output.close()
            raise Unable(f"{probe.script}: {words(error)}") from error
        self._loop.add_reader(self._output, self._read)
        self._loop.add_reader(self._watch, self._over)

    def outcome(self) -> Outcome:
        status = self._process.returncode
        line = self._said.decode("utf-8", "replace").strip().partition("\n")[0].strip()[:SHOWN]
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return Outcome(status == 0, f"{how}: {line}" if line else how)

    def kill(self) -> None:
        """All of its group: the number is its own until it has been waited for."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        chunk = b""
        with suppress(BlockingIOError):
            chunk = os.read(self._output.fileno(), 1 << 16)
            if not chunk:
                self._loop.remove_reader(self._output)
        self._said += chunk[: KEPT - len(self._said)]

    def _over(self) -> None:
        """The program is dead. What it started may live, and hold on to its output."""
        self._loop.remove_reader(self._watch)
        os.close(self._watch)
        self.kill()
        self._read()
        self._loop.remove_reader(self._output)
        self._output.close()
        self._process.wait()
        self.ended.set_result(None)


def _start(probe: Probe) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [probe.script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        cwd="/",
        env=environment(probe),
        start_new_session=True,
    )
