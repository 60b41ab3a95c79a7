"""The agent-check protocol as HAProxy understands it: of each answer, the state it shows is what our model says."""

import socketserver
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import pytest
from proxy import free_port, serving, until

from lbnode.errors import NotReady
from lbnode.haproxy.runtime import Runtime
from lbnode.maintenance.state import HEALTH_WORDS, AdminState, Mode, answer, parse

HEALTH, ADMIN, SHARES = ("", "up", "down", "stopped", "fail"), ("", "ready", "drain", "maint"), ("", "75%", "0%")
LINES = (
    *(" ".join(word for word in words if word) for words in product(HEALTH, ADMIN, SHARES) if any(words)),
    "UP READY 50%", "up,ready,30%", "up\tready", "up  ready", "up down", "down up", "drain ready", "ready drain",
    "maint ready", "ready maint", "75% 50%", "maxconn:30", "up maxconn:30 maxconn:40", "maxconn:30 75% up ready",
    "300%", "256%", "1%", "down # planned work", "stopped # disks, 12 of them", "fail # no # more", "drain # why",
    "up ready 100% # all is well", "75%,maxconn:30,maint,down", "ready,up", "down ready 100%", "up maint 50%",
)  # fmt: skip
CONFIG = """
global
    stats socket {folder}/admin.sock level admin
    max-spread-checks 10ms
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 2s
backend b
    default-server weight 100 agent-check agent-port {port} agent-inter 60s
{servers}
"""


class Told(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        number = self.rfile.readline().strip()
        if number.isdigit():
            self.wfile.write(TOLD[int(number)])


TOLD = [*(line.encode() + b"\n" for line in LINES), *(answer(parse(line)) for line in LINES)]
"""As an operator's own agent would say it, and as ours does: in full."""


def expected(state: AdminState) -> tuple[str, int, str]:
    """Status, weight and limit of connections as HAProxy shows them, for a server of weight 100."""
    weight = min(state.percent, 256)
    limit = "" if state.maxconn is None else str(state.maxconn)
    if state.mode is Mode.READY:
        return "UP", weight, limit
    if state.mode is Mode.DRAIN:
        return "DRAIN", weight, limit
    return ("DOWN" if state.word in HEALTH_WORDS else "MAINT"), weight, limit


def test_there_are_enough_of_them() -> None:
    assert len(set(LINES)) == len(LINES) >= 60


@pytest.fixture(scope="module")
def shown() -> list[dict[str, str]]:
    """HAProxy's rows, one for each answer."""
    with tempfile.TemporaryDirectory(prefix="lb") as name:
        port = free_port()
        servers = "\n".join(
            f"    server s{number} 127.0.0.1:{port} agent-send {number}\\n" for number in range(len(TOLD))
        )
        Path(name, "haproxy.cfg").write_text(CONFIG.format(folder=name, port=port, servers=servers))
        runtime = Runtime(Path(name, "admin.sock"))

        def rows() -> list[dict[str, str]]:
            try:
                return runtime.stat("b 4 -1")
            except NotReady:
                return []

        with serving(Told(("127.0.0.1", port), _Answer)):
            process = subprocess.Popen(["haproxy", "-db", "-f", f"{name}/haproxy.cfg"], stderr=subprocess.DEVNULL)
            try:
                until(lambda: rows() and all(row["agent_status"] for row in rows()), 20)
                until(lambda: not any(row["agent_status"].startswith("*") for row in rows()))
                weights = {state["srv_name"]: state["srv_uweight"] for state in runtime.servers_state("b")}
                # The weight that statistics show is another thing while a server is out.
                return [{**row, "set": weights[row["svname"]]} for row in rows()]
            finally:
                process.terminate()
                process.wait(10)


@pytest.mark.parametrize("line", LINES)
def test_haproxy_shows_what_our_model_says(shown: list[dict[str, str]], line: str) -> None:
    state = parse(line)
    number = LINES.index(line)
    for row, said in ((shown[number], "the line itself"), (shown[number + len(LINES)], "our answer to it")):
        status = row["status"].replace("no check", "UP").split()[0]
        if row is shown[number] and status == "MAINT" and state.mode is Mode.MAINT:
            status = expected(state)[0]  # out for two reasons: HAProxy shows the one, we tell the other
        assert (status, int(row["set"]), row["slim"]) == expected(state), (said, row["status"], row["last_agt"])
