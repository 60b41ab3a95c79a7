"""Signals as readable bytes: a `with` block during which chosen signals are collected instead of delivered.

Loops that wait for descriptors then handle a Ctrl-C like any other input, at a moment of their own choosing. Outside
the main thread Python cannot set handlers; there the block changes nothing and its descriptor never becomes readable.
"""

import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self


class Relay:
    """Collects the given signals while the block runs; `fileno()` is readable when there are any."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
        self._before: dict[signal.Signals, Any] = {}
        self._reader, self._writer = -1, -1

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._collect) for number in self._numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def taken(self) -> list[int]:
        """The signals that arrived since the last call, in order."""
        try:
            return list(os.read(self._reader, 64))
        except BlockingIOError:
            return []

    def _collect(self, number: int, _frame: FrameType | None) -> None:
        os.write(self._writer, bytes([number]))
