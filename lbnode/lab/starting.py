"""Nodes in which programs are started and Python is forked from several threads of the lab at once.

subprocess.Popen waits until nobody has the write end of a pipe of its own any more. A fork in another thread at just
that moment takes a copy of it along, and a fork that becomes no other program keeps it open for as long as it runs:
Popen never returns. So one start at a time, in all nodes.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lbnode.lab.namespaces import Node

_one_at_a_time = threading.Lock()


class StartingNode(Node):
    """A node whose starts exclude each other's, and those in all other nodes."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        with _one_at_a_time:
            return super().popen(argv, **options)

    def fork(self, function: Callable[[], int | None], log_path: Path) -> int:
        with _one_at_a_time:
            return super().fork(function, log_path)

    def run(self, argv: Sequence[str], timeout: float = 30.0, **options: Any) -> subprocess.CompletedProcess[str]:
        check = options.pop("check", False)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = self.popen(argv, **pipes)
        try:
            out, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        finally:
            self.reaped(process.pid)
        done = subprocess.CompletedProcess(list(argv), process.returncode, out.decode(), errors.decode())
        if check:
            done.check_returncode()
        return done
