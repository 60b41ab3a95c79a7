"""How long do 1,000 prefixes take: announced, withdrawn, and there again after ExaBGP was killed and started?

The other side is ExaBGP's plain API, used as its documentation does: a script that ExaBGP runs, which writes a line per
prefix and reads the answers. Both are measured at the router, a BIRD in a namespace of its own, from the moment the
order is given (the file `wanted` is written; the script is told to begin) to the last route. Replay is measured from
the start of ExaBGP. The relay checks every prefix against the list of what may be announced; the script checks nothing.
"""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from bench import clock
from bench.figure import OURS, Figure
from lbnode.bgp import exabgp
from lbnode.bgp.driver import ExabgpDriver
from lbnode.bgp.guard import Guard
from lbnode.config.load import parse
from lbnode.lab import links
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths
from lbnode.plan import diff
from lbnode.resources import Announcement, Row, Running
from lbnode.templates import load

PREFIXES = 1_000
PLAIN = "ExaBGP's plain API"
OWN, ROUTER = "192.0.2.11", "192.0.2.1"
PATHS = Paths()
BIRD_CONF, BIRD_SOCKET = Path("/run/bench-bird.conf"), Path("/run/bench-bird.ctl")
BIRD = f"""\
router id {ROUTER};
protocol device {{}}
protocol bgp node {{
  local {ROUTER} as 64500; neighbor {OWN} as 64501; strict bind;
  connect delay time 1; error wait time 1,2; ipv4 {{ import all; export none; }};
}}
"""
CLUSTER = f"""\
bgp: {{local_asn: 64501, peers: {{r1: {{address: {ROUTER}, asn: 64500}}}}}}
nodes: {{l4-1: {{role: l4, ipv4: {OWN}}}}}
"""
PLAIN_CONF, SCRIPT, ORDERS, BELL = (
    Path("/run", f"bench-{name}") for name in ("plain.conf", "script.py", "orders", "bell")
)
# It sleeps until the bell rings: one that looked again and again would take time from what is measured.
SCRIPT_TEXT = f"""\
import os, select, sys
prefixes = ["198.18.%d.%d/32" % divmod(number, 250) for number in range({PREFIXES})]
bell, before = os.open("{BELL}", os.O_RDWR), ""
while True:
    word = open("{ORDERS}").read() if os.path.exists("{ORDERS}") else ""
    if word and word != before:
        sys.stdout.write("".join("%s route %s next-hop {OWN}\\n" % (word, prefix) for prefix in prefixes))
        sys.stdout.flush()
        for _ in prefixes:
            sys.stdin.readline()
        before = word
    ready = select.select([bell, sys.stdin], [], [])[0]
    if sys.stdin in ready:
        sys.exit()
    os.read(bell, 1)
"""
PLAIN_TEXT = f"""\
process script {{
  run {sys.executable} {SCRIPT};
  encoder text;
}}
neighbor {ROUTER} {{
  router-id {OWN}; local-address {OWN}; local-as 64501; peer-as 64500;
  api {{ processes [ script ]; }}
}}
"""
ROWS = tuple(Announcement("198.18.{}.{}/32".format(*divmod(number, 250)), ROUTER, OWN) for number in range(PREFIXES))


class Router:
    """BIRD, asked by its own socket how many routes it has: starting `birdc` would disturb what is measured."""

    def __init__(self, node: Node, log: Path) -> None:
        node.write(BIRD_CONF, BIRD)
        node.spawn(["bird", "-f", "-c", str(BIRD_CONF), "-s", str(BIRD_SOCKET)], log)
        self.control = socket.socket(socket.AF_UNIX)
        wait_until(lambda: node.call(self._connect), 20, "BIRD")
        self._answer()

    def routes(self) -> int:
        self.control.sendall(b"show route count\n")
        return int(re.findall(r"^.*?(\d+) of \d+ routes", self._answer(), re.MULTILINE)[0])

    def established(self) -> bool:
        self.control.sendall(b"show protocols node\n")
        return "Established" in self._answer()

    def wait(self, routes: int) -> None:
        wait_until(lambda: self.routes() == routes, 120, f"{routes} routes in the router", 0.002)

    def _answer(self) -> str:
        """Up to the line with a blank after its number; others go on with `-` or begin with a blank."""
        text = b""
        while not re.search(rb"^\d{4} .*\n\Z", text, re.MULTILINE):
            text += self.control.recv(65536)
        return text.decode()

    def _connect(self) -> bool:
        try:
            self.control.connect(str(BIRD_SOCKET))
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Side:
    """One way to order announcements: `order` all of them, or none; `argv` starts its ExaBGP."""

    order: Callable[[bool], None]
    argv: list[str]

    def change(self, router: Router, everything: bool) -> None:
        """Until the router has it."""
        self.order(everything)
        router.wait(PREFIXES if everything else 0)


def ours(node: Node) -> Side:
    text = exabgp.config(load(), parse(CLUSTER), "l4-1", PATHS)
    node.write(PATHS.exabgp_config, text)
    node.write(PATHS.announceable, Guard([ip_network("198.18.0.0/15")]).text)
    running, driver = Running("exabgp", exabgp.digest(text)), ExabgpDriver(PATHS, wait_s=120)

    def order(everything: bool) -> None:
        wanted: tuple[Row, ...] = (running, *ROWS) if everything else (running,)

        def inside() -> list[str]:
            changes = diff(driver.observe(wanted).rows, wanted).changes
            return [result.error for result in driver.apply(changes) if result.error]

        if errors := node.call(inside):
            raise RuntimeError(f"cannot measure: {errors[0]}")

    return Side(order, _argv(PATHS.exabgp_config))


def plain(node: Node) -> Side:
    node.write(SCRIPT, SCRIPT_TEXT)
    node.write(PLAIN_CONF, PLAIN_TEXT)
    node.call(lambda: os.mkfifo(BELL))
    bell = node.call(lambda: os.open(BELL, os.O_RDWR))

    def order(everything: bool) -> None:
        node.write(ORDERS, "announce" if everything else "withdraw")
        os.write(bell, b".")

    return Side(order, _argv(PLAIN_CONF))


def _argv(config: Path) -> list[str]:
    argv, environment = exabgp.command(PATHS)
    return ["env", *(f"{name}={value}" for name, value in environment.items()), argv[0], str(config)]


def measure(rounds: int, log: Path) -> list[Figure]:
    took: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for name, prepare in ((OURS, ours), (PLAIN, plain)):
            for what, value in _round(prepare, log).items():
                took.setdefault(what, {}).setdefault(name, []).append(value)
    return [Figure(f"{PREFIXES:,} prefixes: {what}", "ms", values) for what, values in took.items()]


def _round(prepare: Callable[[Node], Side], log: Path) -> dict[str, float]:
    with Node("router") as away, Node("speaker") as node:
        links.connect(Port(node, "eth0", (f"{OWN}/24",)), Port(away, "eth0", (f"{ROUTER}/24",)))
        router, side = Router(away, log), prepare(node)
        process = node.spawn(side.argv, log)
        wait_until(router.established, 60, "the session")
        clock.rest()
        announce = clock.milliseconds(lambda: side.change(router, True))
        clock.rest()
        withdraw = clock.milliseconds(lambda: side.change(router, False))
        side.change(router, True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        node.reaped(process.pid)
        router.wait(0)
        clock.rest()
        begin = time.perf_counter()
        node.spawn(side.argv, log)
        router.wait(PREFIXES)
        replay = 1000 * (time.perf_counter() - begin)
        router.control.close()
    return {
        "announced, order to the last route in the router": announce,
        "withdrawn, order to the last route gone": withdraw,
        "announced again, start of a killed ExaBGP to the last route": replay,
    }
