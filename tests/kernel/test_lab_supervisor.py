"""The lab's stand-in for systemd."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lbnode.lab.namespaces import Node
from lbnode.lab.supervisor import DELAY_S, Program, Supervisor
from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("l4a") as made:
        yield made


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path) as made:
        yield made


def running(supervisor: Supervisor, key: str, unlike: int | None = None) -> int:
    return wait_until(lambda: (pid := supervisor.pid(key)) != unlike and pid, 10, f"{key} to run")


def test_a_killed_program_is_started_again(node: Node, supervisor: Supervisor) -> None:
    key = supervisor.add(Program(node, "sleeper", ["sh", "-c", "echo $$; exec sleep 1000"]))
    first = running(supervisor, key)
    wait_until(lambda: supervisor.log(key).read_text(), 10, "the first start in the log")
    assert supervisor.kill(key) == first
    second = running(supervisor, key, unlike=first)
    wait_until(lambda: len(supervisor.log(key).read_text().split()) == 2, 10, "two starts in the log")
    assert [event.what for event in supervisor.events] == [
        f"started, pid {first}",
        f"killed by SIGKILL, pid {first}",
        f"started, pid {second}",
    ]
    assert supervisor.events[2].time - supervisor.events[1].time < 2


def test_a_python_function_is_a_program_too(node: Node, supervisor: Supervisor) -> None:
    def work() -> int:
        sys.stdout.write(f"{os.uname().nodename}\n")
        signal.pause()
        return 0

    key = supervisor.add(Program(node, "agent", work))
    wait_until(lambda: supervisor.log(key).exists() and supervisor.log(key).read_text() == "l4a\n", 10, "its output")
    supervisor.stop(key)
    assert supervisor.pid(key) is None
    supervisor.start(key)
    assert running(supervisor, key)


def test_a_program_waits_for_what_it_needs(node: Node, supervisor: Supervisor) -> None:
    key = supervisor.add(Program(node, "bird", ["sleep", "1000"], needs="/etc/lb/bird.conf"))
    other = supervisor.add(Program(node, "other", ["sleep", "1000"]))
    running(supervisor, other)
    assert supervisor.pid(key) is None
    node.write("/etc/lb/bird.conf", "")
    running(supervisor, key)


def test_a_program_that_cannot_run_is_tried_less_and_less(node: Node, supervisor: Supervisor) -> None:
    supervisor.add(Program(node, "broken", ["false"]))
    supervisor.add(Program(node, "absent", ["/nowhere/at/all"]))

    def starts(name: str, what: str) -> list[float]:
        return [event.time for event in supervisor.events if event.key == f"l4a/{name}" and event.what.startswith(what)]

    wait_until(lambda: len(starts("broken", "started")) >= 4, 10, "four starts")
    wait_until(lambda: len(starts("absent", "cannot start")) >= 2, 10, "two tries")
    times = starts("broken", "started")[:4]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    # At least: a busy processor only makes them longer.
    assert all(pause > 0.95 * DELAY_S * 2**number for number, pause in enumerate(pauses))


def test_stop_is_bounded_however_stubborn_the_program(node: Node, supervisor: Supervisor) -> None:
    key = supervisor.add(Program(node, "stubborn", ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]))
    wait_until(lambda: supervisor.log(key).exists() and supervisor.log(key).read_text() == "up\n", 10, "its output")
    before = time.monotonic()
    supervisor.stop(key, deadline_s=0.3)
    assert time.monotonic() - before < 3
    assert supervisor.events[-1].what.startswith("killed by SIGKILL")


def test_nothing_is_left_and_no_zombie(node: Node, tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        keys = [supervisor.add(Program(node, f"p{number}", ["sleep", "1000"])) for number in range(5)]
        pids = [running(supervisor, key) for key in keys]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
