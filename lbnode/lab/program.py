"""Starting programs in a node: one that is executed, or a Python function as a program of its own, a fork of the lab.

Both happen one at a time: a fork that fell between the making of another child's pipes and their closing would keep
them open for as long as it lives, and whoever waits for their end would wait as long.

The child is a copy of the lab made in one of its threads, so it first sheds what is not its own: signal handlers,
standard streams and what they had buffered. It leaves by os._exit: nothing of the lab's clean-up may run twice.
"""

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_one_at_a_time = threading.Lock()


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """subprocess.Popen, but never while another child is being made."""
    with _one_at_a_time:
        return subprocess.Popen(argv, **options)


def fork(function: Callable[[], int | None], log: int, cwd: Path) -> int:
    """Returns the pid of a child that runs `function` with its output in `log` and exits with what it returns."""
    with _one_at_a_time:
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _become_program(log, cwd)
        status = function() or 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - this is the top of a process: whatever it was goes to its log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _become_program(log: int, cwd: Path) -> None:
    _forget_signals()
    os.setsid()
    os.chdir(cwd)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(null)
    # New objects: the old ones hold what the lab had not flushed yet.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
