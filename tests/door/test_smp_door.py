"""The door to the two-processor kernel, seen from outside: output, exit status, signals and files come through."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.lab

DOOR = (sys.executable, "-m", "lbnode", "lab", "kernel", "--smp", "--")
PATIENCE_S = 240.0


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen((*DOOR, *argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_output_errors_files_and_exit_status_come_through_from_two_guests_at_once(tmp_path: Path) -> None:
    """Much output, read late: the guest waits, and nothing is lost when it powers off."""
    (tmp_path / "from-outside").write_text("hello\n")
    many = start("sh", "-c", "seq 300000; printf 'x\\0'; echo wrong >&2; exit 7")
    files = start("sh", "-c", f"cd {tmp_path}; cat from-outside; nproc; pwd >from-inside")
    assert files.communicate(timeout=PATIENCE_S) == ("hello\n2\n", "")
    assert files.returncode == 0
    assert (tmp_path / "from-inside").read_text() == f"{tmp_path}\n"
    out, errors = many.communicate(timeout=PATIENCE_S)
    expected = "".join(f"{number}\n" for number in range(1, 300001)) + "x\0"
    assert hashlib.sha256(out.encode()).digest() == hashlib.sha256(expected.encode()).digest()
    assert (errors, many.returncode) == ("wrong\n", 7)


def test_a_signal_reaches_the_command(tmp_path: Path) -> None:
    script = f"trap 'echo told; exit 9' TERM; : >{tmp_path}/up; sync; while :; do sleep 1; done"
    running = start("sh", "-c", script)
    wait_until((tmp_path / "up").exists, PATIENCE_S, "the guest's command")
    running.send_signal(signal.SIGTERM)
    assert running.communicate(timeout=PATIENCE_S)[0] == "told\n"
    assert running.returncode == 9
