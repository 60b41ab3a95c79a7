"""Nodes: what is private is private, what runs in them ends with them, and with the lab."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel


def test_a_node_is_a_machine_of_its_own(tmp_path: Path) -> None:
    with Node("r1") as node, Node("r2") as other:
        node.write("/etc/lb/cluster.yaml", "text")
        assert node.read("/etc/lb/cluster.yaml") == "text"
        assert not other.exists("/etc/lb/cluster.yaml")
        node.write("/run/thing", "x")
        assert not Path("/run/thing").exists()
        assert node.run(["hostname"]).stdout == "r1\n"
        assert "eth0" not in node.run(["ls", "/sys/class/net"]).stdout
        assert "UP" in node.run(["ip", "link", "show", "lo"]).stdout
        assert node.run(["cat", "/proc/1/comm"]).stdout == "cat\n"
        assert node.run(["pwd"]).stdout == f"{Path.cwd()}\n"


def test_a_socket_opened_in_a_node_stays_there() -> None:
    with Node("r1") as one, Node("r2") as two:
        listener = one.call(lambda: socket.create_server(("127.0.0.1", 8000)))
        with listener:
            one.call(lambda: socket.create_connection(("127.0.0.1", 8000), 5)).close()
            with pytest.raises(ConnectionRefusedError):
                two.call(lambda: socket.create_connection(("127.0.0.1", 8000), 5))


def test_programs_end_with_the_node(tmp_path: Path) -> None:
    with Node("r1") as node:
        process = node.spawn(["sh", "-c", "echo up; setsid sleep 1000 & exec sleep 1000"], tmp_path / "log")
        wait_until(lambda: (tmp_path / "log").read_text() == "up\n", 10, "the program's output")
        inside = f"/proc/{node.holder}/task/{node.holder}/children"
        assert Path(inside).exists()
        pidfd = os.pidfd_open(process.pid)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)
    process.wait()


def test_a_forked_function_is_a_program(tmp_path: Path) -> None:
    def work() -> int:
        sys.stdout.write(f"{os.uname().nodename} {Path.cwd()} {signal.getsignal(signal.SIGTERM) == signal.SIG_DFL}\n")
        return 5

    log = tmp_path / "log"
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with Node("r1") as node:
            pid = node.fork(work, log)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
            node.reaped(pid)
            pid = node.fork(lambda: 1 // 0, log)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
            node.reaped(pid)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert log.read_text().startswith(f"r1 {Path.cwd()} True\nTraceback")
    assert "ZeroDivisionError" in log.read_text()


def test_everything_ends_when_the_lab_is_killed(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from lbnode.lab.namespaces import Node
nodes = [Node("r1"), Node("r2")]
for node in nodes:
    node.fork(lambda: time.sleep(1000), Path(sys.argv[1]) / "log")
    node.spawn(["sleep", "1000"], Path(sys.argv[1]) / "log")
print(*(node.holder for node in nodes), flush=True)
time.sleep(1000)
"""
    lab = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with lab:
        assert lab.stdout is not None
        holders = [os.pidfd_open(int(pid)) for pid in lab.stdout.readline().split()]
        assert len(holders) == 2
        lab.kill()
    for holder in holders:
        wait_until(lambda holder=holder: _is_gone(holder), 10, "a node's holder to end")
        os.close(holder)


def _is_gone(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_closed_node_says_so() -> None:
    node = Node("r1")
    node.close()
    node.close()
    with pytest.raises(LabError, match="it is closed"):
        node.run(["true"])
