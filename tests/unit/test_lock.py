"""One pass at a time, across processes and threads."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lbnode.errors import NotPermitted, NotReady
from lbnode.lock import exclusive

HOLDER = """
import sys
from pathlib import Path
from lbnode.lock import exclusive

with exclusive(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    for _ in range(2):
        with exclusive(path, wait_s=0):
            pass
    with pytest.raises(ZeroDivisionError), exclusive(path, wait_s=0):
        _ = 1 / 0
    with exclusive(path, wait_s=0):
        pass


def test_another_process_that_holds_it_is_named_and_its_end_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    argv = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(NotReady, match=rf"cannot begin: process {holder.pid} has held {path}"), exclusive(path, 0):
            pass
        holder.kill()
        with exclusive(path, wait_s=10):
            pass


def test_a_waiter_gets_it_when_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    began = threading.Event()

    def second() -> None:
        began.set()
        with exclusive(path, wait_s=10):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(path):
        thread.start()
        assert began.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotPermitted, match="cannot lock "), exclusive(tmp_path / "file" / "lock"):
        pass
