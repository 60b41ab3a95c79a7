"""How a guest ends, with an ordinary shell in the guest's place: together with who started it, and as a whole."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab import boot, guest
from lbnode.lab.errors import LabError
from lbnode.lab.wait import wait_until

DEADLINE_S = 20
CHILD = "trap '' TERM INT HUP; sleep 1000"
"""As the host processes of a guest's programs are: asked to end, they do not."""
STARTER = """
import sys, tests.unit.test_lab_boot as test
test.start(test.Stubborn(int(sys.argv[1]), sys.argv[2]))
"""


class Stubborn:
    """A kernel that has come up and goes on; all of its processes hold `held`."""

    name = "stubborn"
    script = Path(os.devnull)
    boot_deadline_s = 60.0

    def __init__(self, held: int, does: str) -> None:
        self.held, self.does = held, does

    def launch(self, work: Path, limits: boot.Limits, out: int, err: int) -> boot.Launch:
        (work / "booted").touch()
        text = f"({CHILD}) & echo {work} >&{out}; {self.does}"
        return boot.Launch(["/bin/sh", "-c", text], os.environ, [self.held])

    def hand_on(self, work: Path, name: str) -> None:
        """It does not listen."""


def start(kernel: Stubborn) -> int:
    return boot.run(kernel, guest.Command(("true",), Path("/"), {}))


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def all_gone(reading: int) -> bool:
    """Whether every process that held the other end has ended, within the deadline."""
    return bool(select.select([reading], [], [], DEADLINE_S)[0]) and os.read(reading, 1) == b""


def test_a_guest_ends_with_who_started_it_even_if_nobody_asks_it(pipe):
    """As a test does that has waited for too long."""
    reading, writing = pipe
    argv = [sys.executable, "-c", STARTER, str(writing), CHILD]
    starter = subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=[writing], text=True)
    os.close(writing)
    work = Path(starter.stdout.readline().rstrip())
    assert work.is_dir()
    assert not select.select([reading], [], [], 0)[0]
    starter.kill()
    starter.communicate()
    assert all_gone(reading)
    wait_until(lambda: not work.exists(), DEADLINE_S, "its directory to go")


def test_when_the_kernel_is_killed_nothing_of_it_goes_on(pipe):
    """Its other processes would hold the lines open, and who started it would wait for ever."""
    reading, writing = pipe
    with pytest.raises(LabError, match="the stubborn guest ended before its command did"):
        start(Stubborn(writing, f"kill -{signal.SIGKILL.value} $$"))
    assert all_gone(reading)
