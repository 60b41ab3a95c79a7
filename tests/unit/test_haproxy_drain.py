"""`lbnode drain --wait` on an L7 node, beside a real HAProxy: WebSockets and long downloads count, also those that an
old process serves after a reload, and the wait ends when they do, or when HAProxy ends them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from proxy import Agent, Node, Web, serving, until
from servers import Told

from lbnode.cli import waiting
from lbnode.config.model import Cluster
from lbnode.haproxy import program
from lbnode.maintenance import flows
from lbnode.plan import Change

SIZE = 8 << 20
"""More than fits into the buffers on its way."""
PIECE = 1 << 16
UPGRADE = "\r\n".join(
    ("GET /chat HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "")
).encode()  # fmt: skip
DOWNLOAD = b"GET /long HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Lasting(Told):
    """A WebSocket that sends back what it gets, or a long answer."""

    def do_GET(self) -> None:  # noqa: N802 - a name of http.server's
        if self.headers.get("Upgrade"):
            self.upgrade()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        for _ in range(SIZE // PIECE):
            self.wfile.write(bytes(PIECE))


class Backend(Web):
    daemon_threads = True


def cluster(node: Node, client_s: float, hard_stop_after_s: int) -> Cluster:
    found = node.cluster(timeouts={"client_s": client_s}).model_dump()
    found["haproxy"]["hard_stop_after_s"] = hard_stop_after_s
    found["probe"].update(interval_s=0.1, timeout_s=0.1)
    found["pools"]["app"]["check"]["type"] = "tcp"
    return Cluster.model_validate(found)


class Site:
    """A node that serves, whose old processes may live for `hard_stop_after_s`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.hard_stop_after_s = 600
        self.client_s = 60

    def cluster(self) -> Cluster:
        return cluster(self.node, self.client_s, self.hard_stop_after_s)

    def connect(self, asked: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.node.vip), timeout=5)
        connection.sendall(asked)
        assert connection.recv(8).startswith(b"HTTP/1.")
        return connection

    def reload(self) -> None:
        self.client_s += 1
        wanted = self.node.write(self.node.render(self.cluster()))
        assert self.node.driver.apply([Change(self.node.rows()[0], wanted)])[0].error == ""

    @property
    def old(self) -> list[object]:
        seen = program.seen(self.node.paths)
        return [] if seen is None else list(seen["old_processes"])

    def watch(self) -> flows.Watch:
        return flows.watch(self.cluster(), "l7", self.node.paths)

    def left(self) -> int:
        return self.watch().look().number


@pytest.fixture
def site(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)
    site = Site(node)
    wanted = node.write(node.render(site.cluster()))
    with serving(Agent(node.agent)), serving(Backend(("127.0.0.1", node.web), Lasting)), node.running():
        assert node.driver.apply([Change(None, wanted)])[0].error == ""
        yield site


def test_it_waits_for_websockets_and_downloads_of_old_processes_too(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        chats = [stack.enter_context(closing(site.connect(UPGRADE))) for _ in range(2)]
        site.reload()
        chats.append(stack.enter_context(closing(site.connect(UPGRADE))))
        download = stack.enter_context(closing(site.connect(DOWNLOAD)))
        until(lambda: site.left() == 4)
        assert len(site.old) == 1
        done = waiting.until_calm(site.watch(), 0)
        assert (done["ended"], done["left"], done["flows"]) == (False, 4, "4 connections left")
        ended: list[dict[str, object]] = []
        wait = threading.Thread(target=lambda: ended.append(waiting.until_calm(site.watch(), 60)))
        wait.start()
        while download.recv(1 << 20):
            pass  # to its end
        until(lambda: site.left() == 3)
        for left in (2, 1):
            chats.pop(0).close()
            until(lambda left=left: site.left() == left)  # type: ignore[misc]
        assert not ended, "a WebSocket is left"
        chats.pop().close()
        wait.join(30)
        assert (ended[0]["ended"], ended[0]["flows"]) == (True, "none")
    until(lambda: not site.old)
    assert "connections left" in capsys.readouterr().err


def test_an_old_process_is_ended_with_its_connections_after_a_time(site: Site) -> None:
    site.hard_stop_after_s = 1
    site.reload()
    with closing(site.connect(UPGRADE)) as chat:
        began = time.monotonic()
        site.reload()
        assert (len(site.old), site.left()) == (1, 1)
        done = waiting.until_calm(site.watch(), 60)
        assert done["ended"]
        assert time.monotonic() - began >= site.hard_stop_after_s
        while chat.recv(1 << 16):
            pass  # the rest of the answer, and then the end
    until(lambda: not site.old)
