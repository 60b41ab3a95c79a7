"""HAProxy before the servers, reloaded while it has flows: the old process keeps them without listening any more, and
their second chance finds them there, on their own node."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chances import RELAY, SERIALS, Chances, added, five, moved, opened
from echo import BEHIND, ECHO, answers

from lbnode.haproxy.runtime import NotReady, Runtime
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel

FLOWS = 30
PATIENCE_S = 30
CONFIG = f"""
global
  maxconn 1000
  log stdout format raw daemon
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
listen echo
  bind :{ECHO}
  bind :::{ECHO} v6only
  server own 127.0.0.1:{BEHIND}
"""


class Proxy:
    """HAProxy on one node, with its master's own socket."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.socket = node, folder / "master.sock"
        self.config = folder / "haproxy.cfg"
        self.config.write_text(CONFIG)
        argv = ["haproxy", "-W", "-S", str(self.socket), "-f", str(self.config)]
        self.process: subprocess.Popen[bytes] = node.spawn(argv, folder / "log")

    def workers(self) -> tuple[int, int]:
        """How many that are in force, and how many old ones."""
        try:
            found = Runtime(self.socket).processes()
        except NotReady:  # it is about to start, or reads its configuration again
            return 0, 0
        return len(found.workers), len(found.old)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGUSR2)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.node.reaped(self.process.pid)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_flows_of_an_old_process_are_found(stack: ExitStack, tmp_path: Path) -> None:
    site = stack.enter_context(five(tmp_path))
    site.servers.give_up(ECHO)
    proxies = []
    for name in SERIALS:
        folder = tmp_path / f"proxy-{name}"
        folder.mkdir()
        proxies.append(Proxy(site.nodes[name], folder))
        stack.callback(proxies[-1].end)
    for proxy in proxies:
        wait_until(lambda proxy=proxy: proxy.workers() == (1, 0), PATIENCE_S, "HAProxy to start")
    chances = Chances(site)
    chances.learn()
    flows = opened(site, FLOWS)
    holders = {flow.server for flow in flows}
    assert holders == set(SERIALS) - {RELAY}
    for proxy in proxies:
        proxy.reload()
    for name, proxy in zip(SERIALS, proxies, strict=True):
        expected = (1, int(name in holders))
        wait_until(lambda proxy=proxy, expected=expected: proxy.workers() == expected, PATIENCE_S, "the reload")
    added(site)
    chances.learn()
    assert moved(site, flows) == {"own": 2 * len(flows)}
    assert chances.counted("forwarded") > 0
    assert chances.counted("alone") == chances.counted("two-hops") == 0
    settled = chances.counted("forwarded")
    fresh = opened(site, FLOWS)
    assert set(answers(fresh)) == {"own"}
    assert {flow.server for flow in fresh} == set(SERIALS)
    assert chances.counted("forwarded") == settled
    assert [proxy.workers() for proxy in proxies] == [(1, int(name in holders)) for name in SERIALS]
