"""One pass at a time: `lbnode apply` and the agent take the same lock, so that two plans never mix.

flock(2) goes with the process: one that dies leaves nothing to clean up. Each taking opens the file anew, so threads of
one process exclude each other too.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lbnode.errors import NotPermitted, NotReady

POLL_S = 0.05


@contextmanager
def exclusive(path: Path, wait_s: float = 10) -> Iterator[None]:
    """Holds the lock file `path` (made when missing) while the block runs.

    Raises NotReady, which names the holder, when it is not free within `wait_s` seconds, and NotPermitted.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise NotPermitted(f"cannot lock {path}: {error.strerror}") from error
    try:
        _take(descriptor, path, wait_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def _take(descriptor: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                message = f"cannot begin: process {holder} has held {path} for {wait_s:g} s; try again when it is done"
                raise NotReady(message) from None
            time.sleep(POLL_S)
        else:
            return
