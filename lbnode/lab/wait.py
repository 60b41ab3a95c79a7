"""Waiting for a condition, with a deadline and a name: the lab and its tests never wait for time to pass.

A condition that does not come true is an error which says what was waited for, because in a lab of twenty programs
"timed out" alone tells nothing.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lbnode.lab.errors import LabError

T = TypeVar("T")

POLL_S = 0.02


class WaitError(LabError, TimeoutError):
    """A condition did not come true before its deadline."""


def wait_until(condition: Callable[[], T], deadline_s: float, what: str, poll_s: float = POLL_S) -> T:
    """Calls `condition` until it returns something true, and returns that.

    Raises WaitError naming `what` after `deadline_s` seconds. The condition is always tried at least once, and once
    more after the deadline: on a busy single processor the last pause may have been a long one.
    """
    pause = threading.Event()
    end = time.monotonic() + deadline_s
    while True:
        late = time.monotonic() >= end
        if value := condition():
            return value
        if late:
            raise WaitError(f"waited {deadline_s:g} s in vain for {what}")
        pause.wait(poll_s)
