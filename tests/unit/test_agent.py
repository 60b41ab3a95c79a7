"""A real agent process: a backend without direct return, so that it changes nothing on the machine it runs on."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout, suppress
from http.client import HTTPConnection
from io import StringIO
from random import Random

import cluster
import pytest

from lbnode.cli import run
from lbnode.lab.wait import WaitError, wait_until

DEADLINE_S = 15.0


class RunningAgent:
    """The process, and what its node's people would do."""

    def __init__(self, etc, run):
        self.etc, self.options = etc, ["--node", "s1", "--etc-dir", str(etc), "--run-dir", str(run)]
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
            self.port, self.metrics = free.getsockname()[1], other.getsockname()[1]
        self.write(cluster.TEXT)
        self.log = (run.parent / "agent.log").open("w+")
        argv = [sys.executable, "-m", "lbnode", "agent", "--role", "backend", *self.options]
        self.process = subprocess.Popen(argv, stderr=self.log)

    def write(self, text):
        fresh = self.etc / ".cluster.new"
        fresh.write_text(text.replace("through: backend", "").replace("pool: web, }", "pool: web}")
                         + f"agent_check: {{port: {self.port}}}\nmetrics: {{port: {self.metrics}}}\n")  # fmt: skip
        fresh.replace(self.etc / "cluster.yaml")

    def lbnode(self, *words):
        argv = [sys.executable, "-m", "lbnode", *words, *self.options]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)

    def answer(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            return client.makefile().readline()

    def until(self, look):
        """The first true value that `look` gives; the agent's log when none comes in time."""
        found = []

        def seen():
            with suppress(OSError):
                found.append(look())
            return bool(found and found[-1])

        try:
            wait_until(seen, DEADLINE_S, "the agent to say so")
        except WaitError:
            self.log.seek(0)
            raise AssertionError(self.log.read()) from None
        return found[-1]

    def status(self):
        """Asked in this process: tests look often."""
        with redirect_stdout(StringIO()) as said:
            run(["status", "--json", *self.options])
        return json.loads(said.getvalue())


@contextmanager
def started(folder):
    (folder / "etc").mkdir()
    running = RunningAgent(folder / "etc", folder / "run")
    try:
        running.until(running.answer)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(10)
        running.log.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with started(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture
def agent(running):
    """One for all who leave it alive, as it was at first."""
    for name in ("disable", "agent-check"):
        (running.etc / name).unlink(missing_ok=True)
    running.write(cluster.TEXT)
    running.until(lambda: running.answer() == "up ready 100%\n" and running.status()["problems"] == [])
    return running


def test_maintenance_reaches_haproxy_and_status(agent):
    assert agent.answer() == "up ready 100%\n"
    done = agent.lbnode("drain", "--reason", "new disks")
    assert (done.returncode, done.stderr) == (0, "")
    assert agent.answer() == "up drain 100% # new disks\n"
    agent.until(lambda: "drain (new disks)" in agent.status()["admin"])
    (agent.etc / "disable").touch()
    assert agent.answer().startswith("down ready 100%")
    agent.lbnode("ready")
    assert agent.answer() == "up ready 100%\n"


def test_monitoring_is_told_what_status_says(agent):
    def told(page="/metrics"):
        asked = HTTPConnection("127.0.0.1", agent.metrics, timeout=10)
        asked.request("GET", page)
        return asked.getresponse().read().decode()

    agent.until(lambda: "lbnode_in_service 1.0" in told())
    agent.lbnode("drain")
    agent.until(lambda: 'lbnode_admin_state{state="drain"} 1.0' in told())
    assert "lbnode_in_service 0.0" in told()
    assert json.loads(told("/tables")) == {"node": "s1", "announced": [], "tables": {}}
    assert agent.status()["counts"]["failed_passes"] == 0


def test_nonsense_in_the_maintenance_file_keeps_the_last_state_and_is_told(agent):
    (agent.etc / "agent-check").write_text("drian\n")
    assert agent.answer() == "up ready 100%\n"
    problems = agent.until(lambda: agent.status()["problems"])
    assert "cannot understand 'drian'" in problems[0]
    assert agent.lbnode("status").returncode == 1


def test_six_mistakes_are_located_and_the_agent_keeps_the_last_good_file(agent):
    agent.write(
        cluster.TEXT.replace("role: backend", "rol: backend", 1)
        .replace("192.0.2.138", "192.0.2.137")
        .replace("ipv4: 192.0.2.193", "ipv4: 2001:db8::1")
        .replace("ports: [80, 443], pool: web", "ports: [80, 99999], pool: wbe")
        .replace("asn: 65000", "asn: 0", 1)
    )
    done = agent.lbnode("check")
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert len(lines) == len(set(lines))
    assert all(line.split(":")[1].isdigit() for line in lines)
    for word in ("did you mean 'role'", "192.0.2.137", "2001:db8::1", "99999", "did you mean 'web'", "asn"):
        assert any(word in line for line in lines), f"{word} in {lines}"
    problems = agent.until(lambda: agent.status()["problems"])
    assert "the last good one stays in force" in problems[0]
    assert agent.answer() == "up ready 100%\n"
    agent.write(cluster.TEXT)
    agent.until(lambda: agent.status()["problems"] == [])


def test_an_agent_that_is_ended_leaves_no_socket_and_status_says_so(tmp_path):
    with started(tmp_path) as agent:
        agent.until(lambda: agent.status()["last_pass"])
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(10) == 0
        found = agent.status()
    assert found["agent"] is None
    assert found["problems"] == ["agent: not running"]


def test_an_agent_without_a_good_cluster_file_does_not_begin(tmp_path):
    (tmp_path / "cluster.yaml").write_text("nodes: {}\n")
    argv = [sys.executable, "-m", "lbnode", "agent", "--etc-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 78
    assert f"{tmp_path}/cluster.yaml:1:" in done.stderr


def test_whatever_comes_by_its_socket_gets_a_clear_answer_and_does_no_harm(agent):
    """10,000 lines, some of them almost right."""
    random = Random(1)  # noqa: S311 - the same lines every time
    path = agent.etc.parent / "run" / "agent.sock"
    almost = [
        b"[" * 50_000,
        b'{"ask": ["status"]}',
        b'{"ask": "stop"}',
        b'["ask"]',
        b"null",
        b'{"ask": null}',
        b"\xff\xfe",
        b"",
    ]
    answers = set()
    for number in range(10_000):
        line = (
            almost[number] if number < len(almost) else random.randbytes(random.randrange(1, 200)).replace(b"\n", b"")
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(line + b"\n")
            answers.add(client.makefile("rb").readline())
    assert answers == {b'{"error": "cannot understand: send one line such as {\\"ask\\": \\"status\\"}"}\n'}
    with socket.socket(socket.AF_UNIX) as client:  # a line that does not end
        client.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b"x" * 200_000)
            assert b"cannot understand" in client.makefile("rb").readline()
    with socket.socket(socket.AF_UNIX) as client:  # and one that leaves in the middle
        client.connect(str(path))
        client.sendall(b'{"ask": ')
    assert agent.status()["problems"] == []
    agent.log.seek(0)
    assert "Traceback" not in agent.log.read()
