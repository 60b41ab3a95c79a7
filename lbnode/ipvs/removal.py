"""Taking destinations out for good: with their connections, and without hurting anybody else's.

Where `expire_nodest_conn` is 0, the entries of a destination that has gone keep dropping their flows' packets until
their timers end. So it is 1 for the moment of the removal: the kernel then looks through its connection table once, one
jiffy later, and drops those entries (ip_vs_ctl.c, ip_vs_enqueue_expire_nodest_conns; since Linux 5.9). It must not stay
1: a packet that meets any destination between its removal and its return would then move for good.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lbnode.errors import LbnodeError

SETTING = Path("/proc/sys/net/ipv4/vs/expire_nodest_conn")
DEADLINE_S = 0.2
_POLL_S = 0.005


@contextmanager
def flushing(left: Callable[[float], bool]) -> Iterator[None]:
    """While the block runs, and until `left` (given a deadline on the monotonic clock) says no or DEADLINE_S are over,
    entries without a destination are dropped. Raises LbnodeError when the setting cannot be written."""
    _set("1")
    try:
        yield
        deadline = time.monotonic() + DEADLINE_S
        while left(deadline) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    finally:
        _set("0")


def _set(value: str) -> None:
    try:
        SETTING.write_text(value)
    except OSError as error:
        raise LbnodeError(f"cannot write {value} to {SETTING}: {error.strerror}") from error
