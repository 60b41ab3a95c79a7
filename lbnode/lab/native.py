"""Runs one command on the running kernel, in namespaces of its own, so that a lab cannot touch the machine it is on.

The command gets a node without a private /run and /etc (`namespaces.Node`): its own empty network, and process numbers
of its own, so that whatever it leaves behind ends with it. Signals are handed on to it.
"""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lbnode.lab.namespaces import Node
from lbnode.lab.signals import Relay


def run(argv: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float | None = None) -> int:
    """Returns the command's exit status (128 + signal when a signal ended it, 124 when out of time)."""
    with Relay((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals, Node("lab", private=False) as outer:
        settings = {**env, "LBNODE_LAB_KERNEL": "native"}
        process = outer.call(lambda: subprocess.Popen(argv, cwd=cwd, env=settings))
        try:
            finished = _wait(process, signals, seconds)
        finally:
            process.kill()
            status = process.wait()
    if not finished:
        return 124
    return status if status >= 0 else 128 - status


def _wait(process: subprocess.Popen[bytes], signals: Relay, seconds: float | None) -> bool:
    """Waits for the end, handing on signals; False when the time was up first."""
    # A terminal sends Ctrl-C to the command as well: it is in our process group, else it could not read from there.
    has_terminal = sys.stdin is not None and sys.stdin.isatty()
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            selector.register(signals.fileno(), selectors.EVENT_READ)
            while ready := {key.fd for key, _ in selector.select(seconds)}:
                for number in signals.taken():
                    if number != signal.SIGINT or not has_terminal:
                        process.send_signal(number)
                if pidfd in ready:
                    return True
            return False
    finally:
        os.close(pidfd)
