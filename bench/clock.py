"""Timing: milliseconds of work, and a machine that has come to rest before any is timed."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

from lbnode.lab.wait import wait_until

REST_S, BUSY = 0.2, 0.1


def milliseconds(work: Callable[[], object]) -> float:
    return with_processor(work)[0]


def with_processor(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that passed, and those of them in which this process had the processor."""
    gc.collect()
    start, processor = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - processor)


def rest() -> None:
    """Waits until hardly anything runs: what a namespace leaves behind is cleaned up after its end."""
    before = -1.0

    def quiet() -> bool:
        nonlocal before
        last, before = before, _busy()
        return 0 <= last > before - BUSY * REST_S

    wait_until(quiet, 60, "a quiet kernel", REST_S)


def _busy() -> float:
    """Seconds that the processors have worked: user, nice, system, interrupts (proc(5), /proc/stat)."""
    words = Path("/proc/stat").read_text().split(maxsplit=8)
    return sum(int(words[place]) for place in (1, 2, 3, 6, 7)) / 100
