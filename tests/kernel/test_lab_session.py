"""A lab in the background: commands go in through files, and come out as if they had been run here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.lab import session, spool
from lbnode.lab.errors import LabError

pytestmark = pytest.mark.kernel

SERVER = """
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from lbnode.lab import serve
from lbnode.lab.namespaces import Node

@contextmanager
def build():
    with Node("r1") as r1, Node("l4a") as l4a:
        yield SimpleNamespace(nodes={"r1": r1, "l4a": l4a})

serve.serve(Path(sys.argv[1]), build)
"""
CLIENT = """
import sys
from pathlib import Path
from lbnode.lab import remote
sys.exit(remote.execute(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("state")
    assert session.up(directory, [sys.executable, "-c", SERVER, str(directory)]) == ["r1", "l4a"]
    yield directory
    assert session.down(directory)
    assert not session.is_up(directory)


def client(state: Path, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", CLIENT, str(state), *argv]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def test_output_errors_input_and_status_all_arrive(state: Path) -> None:
    done = client(state, "l4a", "sh", "-c", "hostname; cat; echo oops >&2; exit 7", stdin=b"line\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"l4a\nline\n", b"oops\n")


def test_much_input_and_output_arrives_whole(state: Path) -> None:
    content = os.urandom(2_000_000)
    assert client(state, "r1", "cat", stdin=content).stdout == content


def test_a_background_child_does_not_keep_the_client(state: Path) -> None:
    assert client(state, "r1", "sh", "-c", "sleep 1000 & echo done").stdout == b"done\n"


def test_what_cannot_be_run_is_named(state: Path) -> None:
    done = client(state, "l7z", "true")
    assert done.returncode == 69
    assert b"cannot find node l7z: there are r1, l4a" in done.stderr
    done = client(state, "r1", "no-such-program")
    assert done.returncode == 127
    assert b"no-such-program" in done.stderr


def test_a_command_can_run_around_the_nodes(state: Path) -> None:
    outside = client(state, spool.AROUND, "hostname")
    assert (outside.returncode, outside.stderr) == (0, b"")
    assert outside.stdout not in {b"r1\n", b"l4a\n"}


def test_an_interrupt_reaches_the_command(state: Path) -> None:
    argv = [
        sys.executable,
        "-c",
        CLIENT,
        str(state),
        "r1",
        "sh",
        "-c",
        "trap 'exit 9' INT; echo up; while :; do sleep 1; done",
    ]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        running.send_signal(2)
        assert running.wait(30) == 9


def test_a_second_lab_is_refused(state: Path) -> None:
    with pytest.raises(LabError, match="one is up already"):
        session.up(state, ["true"])


def test_a_lab_that_does_not_come_up_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no such topology"):
        session.up(tmp_path, ["sh", "-c", "echo no such topology >&2; exit 1"])
    assert not session.is_up(tmp_path)
