"""A real HAProxy on loopback, and what stands around it: servers, agents, and files of its own."""

import os
import random
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lbnode import templates
from lbnode.config.model import Cluster
from lbnode.files import FileDriver
from lbnode.haproxy import program, render, tables
from lbnode.haproxy import rows as haproxy_rows
from lbnode.haproxy.driver import HaproxyDriver
from lbnode.haproxy.runtime import Runtime
from lbnode.paths import Paths
from lbnode.plan import Plan
from lbnode.reconcile import Pass, plan, run
from lbnode.resources import Row, Running, ServerState
from lbnode.roles.inputs import Desired
from lbnode.templates import Templates


def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    end, pause = time.monotonic() + deadline_s, threading.Event()
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s"
        pause.wait(0.002)


PORTS = range(10_000, 32_000)
"""Below those that the kernel gives to clients: one of theirs may be taken again before a server of a test has it."""


def free_ports(number: int) -> list[int]:
    """All at once, so that they differ."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < number:
            probe = stack.enter_context(closing(socket.socket()))
            port = random.choice(PORTS)  # noqa: S311 - nobody is to be surprised
            found += [port] if is_free(probe, port) else []
        return found


def is_free(probe: socket.socket, port: int) -> bool:
    """Whether nobody else has it."""
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def free_port() -> int:
    return free_ports(1)[0]


class Agent(socketserver.ThreadingTCPServer):
    """An agent-check responder whose answer the test sets."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), AgentAnswer)
        self.answer = b"up ready 100%\n"
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()


class AgentAnswer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Agent)
        answer = self.server.answer
        self.server.asked.set()
        self.server.may_answer.wait(1)
        self.request.sendall(answer)


class Web(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """HAProxy ends its health checks as soon as it has seen the status."""


class Page(BaseHTTPRequestHandler):
    """Answers with the headers it was given."""

    def do_GET(self) -> None:
        body = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[socketserver.BaseServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Node:
    """An L7 node on loopback: paths of its own, free ports, and HAProxy under the test's supervision."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "etc", folder / "run")
        self.agent_inter = "500ms"
        self.health, self.agent, self.stats, self.counts, self.metrics, self.vip, self.web = free_ports(7)
        self.driver = HaproxyDriver(self.paths, wait_s=10)
        self.runtime = Runtime(self.paths.haproxy_socket)
        program.prepare(self.paths)

    def cluster(self, **service: object) -> Cluster:
        return Cluster.model_validate(
            {
                "bgp": {"local_asn": 65000, "peers": {"r1": {"address": "192.0.2.1", "asn": 65001}}},
                "nodes": {
                    "l7": {"role": "l7", "ipv4": "127.0.0.1", "ipv6": "::1"},
                    "s1": {"role": "backend", "ipv4": "127.0.0.1"},
                },
                "services": {"web": {"vips": ["127.0.0.1"], "ports": [self.vip], "pool": "app", **service}},
                "pools": {"app": {"port": self.web, "agent_check": False, "check": {"interval_s": 0.1}}},
                "health": {"port": self.health},
                "agent_check": {"port": self.agent},
                "haproxy": {"metrics_port": self.metrics},
            }
        )

    def templates(self) -> Templates:
        """The shipped ones, but for ports that are taken on the test's machine, and for users it may not become."""
        shipped = templates.load()
        source = shipped.sources[render.TEMPLATE].replace(":8404", f":{self.stats}")
        source = source.replace(":8403", f":{self.counts}")
        source = source.replace("agent-inter 500ms", f"agent-inter {self.agent_inter}")
        if os.geteuid() != 0:
            source = source.replace("    user haproxy\n    group haproxy\n", "")
        return replace(shipped, sources={render.TEMPLATE: source})

    def wanted(self, cluster: Cluster) -> Desired:
        """All that concerns HAProxy, as the l7 role has it."""
        facts = program.facts(cluster, self.paths)
        wanted = haproxy_rows.rows(self.templates(), cluster, "l7", self.paths, program.version(), facts.certificates)
        enabler = ServerState("enabler", "enabler", up=True)
        return Desired((*wanted, enabler), haproxy_rows.reasons(wanted, facts.loaded))

    def make(self, cluster: Cluster) -> Pass:
        """One pass, as `lbnode apply` makes it."""
        return run(self.wanted(cluster), [FileDriver({"haproxy": program.check}), self.driver])

    def plan(self, cluster: Cluster) -> Plan:
        return plan(self.wanted(cluster), [FileDriver({"haproxy": program.check}), self.driver])

    def render(self, cluster: Cluster) -> str:
        """The configuration; the tables that it speaks of are written at once."""
        for table in tables.tables(cluster, self.paths):
            Path(table.path).parent.mkdir(parents=True, exist_ok=True)
            Path(table.path).write_text(table.content)
        return render.config(self.templates(), cluster, "l7", self.paths, program.version()).text

    def write(self, text: str) -> Running:
        self.paths.haproxy_config.write_text(text)
        return Running("haproxy", render.digest(text))

    def get(self, port: int, path: str = "/healthcheck", host: str = "127.0.0.1") -> int:
        with closing(HTTPConnection(host, port, timeout=3)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def rows(self) -> tuple[Row, ...]:
        return self.driver.observe([]).rows

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(program.command(self.paths), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)
