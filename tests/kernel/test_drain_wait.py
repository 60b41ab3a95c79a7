"""`lbnode drain --wait` beside flows that are there, on an L7 node and on an L4 node."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_explain import CLIENT, CLUSTER, WEB, connect, converge, driver, etc

from lbnode.agent import control
from lbnode.cli import run
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths

__all__ = ["driver", "etc"]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

QUICK = "probe: {interval_s: 0.2, timeout_s: 0.2}\n"


@pytest.fixture
def quick(etc: list[str]) -> list[str]:
    """Options without the node; the cluster file with quick probes, so that less time of calm is enough."""
    (Path(etc[1]) / "cluster.yaml").write_text(CLUSTER + QUICK)
    return etc[:4]


class Waiting:
    """`lbnode drain --wait` in a process of its own, and what it has said."""

    def __init__(self, *words: str) -> None:
        argv = [sys.executable, "-m", "lbnode", "drain", "--wait", *words]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self.reader = threading.Thread(target=lambda: self.said.extend(iter(self.process.stderr.readline, "")))
        self.reader.start()

    def end(self) -> tuple[int, str]:
        self.reader.join(60)
        with self.process:
            return self.process.wait(60), self.process.stdout.read()


class End:
    """One connection, which both sides end."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.both = (client, server)

    def close(self) -> None:
        for side in self.both:
            side.close()


@pytest.fixture
def flows() -> Iterator[list[End]]:
    """Three connections to the VIP on this node, and one to another port."""
    with ExitStack() as stack:
        found: list[End] = []
        servers = {port: stack.enter_context(socket.create_server((WEB.vip, port))) for port in (80, 81)}
        for port in (80, 80, 80, 81):
            client = stack.enter_context(socket.create_connection((WEB.vip, port), source_address=(CLIENT, 0)))
            found.append(End(client, stack.enter_context(servers[port].accept()[0])))
        yield found


def test_an_l7_node_is_left_when_its_last_connection_has_ended(quick, flows, capsys):
    node = [*quick, "--node", "l7-1"]
    assert run(["drain", "--wait", "--timeout", "1s", *node]) == 75
    told = capsys.readouterr()
    assert "flows: 3 connections left, after 1 s" in told.out
    assert told.err.startswith("3 connections left\n")
    assert (Path(quick[1]) / "agent-check").read_text() == "drain\n"
    waiting = Waiting(*node)
    for left in (2, 1):
        flows.pop(0).close()
        wait_until(lambda left=left: any(f"{left} connection" in line for line in waiting.said), 30, "the count")
    assert waiting.process.poll() is None
    flows.pop(0).close()
    code, out = waiting.end()
    assert (code, out.splitlines()[-1].split(", after")[0]) == (0, "flows: none")


def test_an_l4_node_is_left_when_no_packet_comes_any_more(quick, driver, capsys):
    converge(driver)
    node = [*quick, "--node", "l4-1"]
    stop = threading.Event()

    def flows() -> None:
        port = 20000
        while not stop.wait(0.1):
            connect(port)
            port += 1

    clients = threading.Thread(target=flows)
    clients.start()
    try:
        assert run(["drain", "--wait", "--timeout", "12s", *node]) == 75
        assert "packets in 5 seconds, after 12 s" in capsys.readouterr().out
    finally:
        stop.set()
        clients.join()
    code, out = Waiting(*node).end()
    assert (code, out.splitlines()[-1].split(", after")[0]) == (0, "flows: none")


def test_an_agent_ends_a_drain_at_its_deadline_and_a_maintenance_at_its_end(quick):
    """A backend: it needs no program of others, and its responder tells the state that others act on."""
    options = [*quick, "--node", "s1"]
    paths = Paths(Path(quick[1]), Path(quick[3]))
    with (Path(quick[1]) / "agent.log").open("w") as log:
        agent = subprocess.Popen([sys.executable, "-m", "lbnode", "agent", *options], stderr=log)

    def answer() -> str:
        with socket.create_connection(("127.0.0.1", 5555), timeout=5) as asked:
            return asked.makefile().readline()

    try:
        wait_until(lambda: control.ask(paths, "status"), 60, "the agent")
        assert run(["drain", "--deadline", "3s", "--for", "8s", "--reason", "disks", *options]) == 0
        assert answer().startswith("up drain 100% # deadline=")
        found = wait_until(lambda: status(paths, "maint"), 30, "the deadline")
        assert "the drain's deadline, 2" in found["admin"]
        assert found["admin"].endswith("has passed: disks)")
        assert answer().startswith("up maint 100% # until=")
        wait_until(lambda: status(paths, "ready"), 30, "the end of the maintenance")
        assert answer() == "up ready 100%\n"
    finally:
        agent.terminate()
        agent.wait(30)


def status(paths: Paths, mode: str) -> dict | None:
    found = control.ask(paths, "status")
    return found if found and found["admin_mode"] == mode else None
