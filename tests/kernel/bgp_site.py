"""A node with ExaBGP and its relay, and a router with BIRD, joined by a veth pair.

The router has three addresses, so it is three peers: one of each family, and one that the node meets later.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType

import pytest

from lbnode.bgp import exabgp
from lbnode.bgp.driver import ExabgpDriver, peers
from lbnode.bgp.guard import Guard
from lbnode.config.model import Cluster
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths
from lbnode.plan import diff
from lbnode.resources import Announcement, Row, Running
from lbnode.templates import load

NODE4, NODE6 = "192.0.2.11", "2001:db8:0:2::11"
ROUTER4, ROUTER6, LATER4 = "192.0.2.1", "2001:db8:0:2::1", "192.0.2.2"
VIP4, VIP6 = "198.51.100.1/32", "2001:db8:100::1/128"
ROUTE4 = Announcement(VIP4, ROUTER4, NODE4)
ROUTE6 = Announcement(VIP6, ROUTER6, NODE6)
ROUTER = """
router id 192.0.2.1;
protocol device {}
template bgp node { strict bind; hold time 9; connect delay time 1; error wait time 1,2; }
protocol bgp one4 from node {
  local 192.0.2.1 as 65000; neighbor 192.0.2.11 as 65010; ipv4 { import all; export none; };
}
protocol bgp one6 from node {
  local 2001:db8:0:2::1 as 65000; neighbor 2001:db8:0:2::11 as 65010; ipv6 { import all; export none; };
}
"""
LATER = """
router id 192.0.2.2;
protocol device {}
protocol bgp two4 {
  local 192.0.2.2 as 65000; strict bind; connect delay time 1; error wait time 1,2;
  neighbor 192.0.2.11 as 65010; ipv4 { import all; export none; };
}
"""


def sh(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


def ask_bird(control: Path, command: str) -> str:
    """What birdc would print, without starting it: tests ask again and again. Nothing when BIRD does not answer.

    The first line of a kind begins with its number and `-`, the last one of all with a number and a blank.
    """
    said = []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(control))
            client.sendall(f"{command}\n".encode())
            with client.makefile(encoding="utf-8") as lines:
                next(lines)  # BIRD 2.0.12 ready.
                for line in lines:
                    numbered = re.match(r"\d{4}[- ]", line)
                    said.append(line[5:] if numbered else line[1:])
                    if numbered and line[4] == " ":
                        break
        except (OSError, StopIteration):
            return ""
    return "".join(said)


class Site:
    """A node with ExaBGP and a router with BIRD; this class starts and restarts the two programs, as systemd would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = Paths(folder / "etc", folder / "run")
        self.node, self.router = f"bgp{os.getpid()}n", f"bgp{os.getpid()}r"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.driver = ExabgpDriver(self.paths, wait_s=10)
        self.program = ""
        """Another ExaBGP than the one beside lbnode."""

    def configure(self, *addresses: str, hold_time_s: int = 9) -> Running:
        """Writes exabgp.conf with these peers, as apply would, and returns the row that goes with it."""
        return self.configure_peers({address: {"asn": 65000, "hold_time_s": hold_time_s} for address in addresses})

    def configure_peers(
        self, peers: Mapping[str, Mapping[str, object]], passwords: Mapping[str, str] = MappingProxyType({})
    ) -> Running:
        """The same with what else the cluster file can say of a peer; peers and passwords by address."""
        named = {f"p{place}": {"address": address, **peers[address]} for place, address in enumerate(peers)}
        secrets = {f"p{place}": passwords[address] for place, address in enumerate(peers) if address in passwords}
        cluster = Cluster.model_validate(
            {
                "nodes": {"l4-1": {"role": "l4", "ipv4": NODE4, "ipv6": NODE6}},
                "bgp": {"local_asn": 65010, "peers": named},
            }
        )
        text = exabgp.config(load(), cluster, "l4-1", self.paths, passwords=secrets)
        self.paths.exabgp_config.parent.mkdir(parents=True, exist_ok=True)
        self.paths.exabgp_config.write_text(text)
        self.paths.announceable.write_text(Guard(map(ip_network, ("198.51.100.0/24", "2001:db8:100::/48"))).text)
        assert exabgp.check(self.paths.exabgp_config) == ""
        return Running("exabgp", exabgp.digest(text))

    def want(self, *rows: Row) -> list[str]:
        """One pass of apply; returns what failed."""
        plan = diff(self.driver.observe(rows).rows, rows)
        return [result.error for result in self.driver.apply(plan.changes) if result.error]

    def start_exabgp(self, **settings: str) -> None:
        argv, environment = exabgp.command(self.paths)
        argv = [self.program or argv[0], *argv[1:]]
        self.start("exabgp", ["ip", "netns", "exec", self.node, *argv], environment | settings)

    def start_bird(self, name: str, config: str) -> None:
        (self.folder / f"{name}.conf").write_text(config)
        control = self.folder / f"{name}.ctl"
        argv = ["bird", "-f", "-c", str(self.folder / f"{name}.conf"), "-s", str(control)]
        self.start(name, ["ip", "netns", "exec", self.router, *argv], {})
        wait_until(control.is_socket, 5, f"BIRD to start as {name}")

    def start(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.running[name] = subprocess.Popen(
                argv, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, name: str, with_signal: int = signal.SIGTERM) -> None:
        process = self.running.pop(name)
        process.send_signal(with_signal)
        process.send_signal(signal.SIGCONT)  # a test may have failed while it was stopped
        process.wait(10)
        (self.folder / f"{name}.ctl").unlink(missing_ok=True)

    def routes(self) -> dict[tuple[str, str], str]:
        """(prefix, protocol) -> next hop, communities, med, as BIRD has them."""
        kept = ("next_hop", "med", "community")
        return {
            key: " ".join(found[name] for name in found if name in kept) for key, found in self.attributes().items()
        }

    def attributes(self) -> dict[tuple[str, str], dict[str, str]]:
        """(prefix, protocol) -> the BGP attributes by BIRD's names, in its order."""
        text = ""
        for control in self.folder.glob("*.ctl"):
            text += ask_bird(control, "show route all")
        found: dict[tuple[str, str], dict[str, str]] = {}
        prefix, key = "", ("", "")
        for line in text.splitlines():
            if match := re.match(r"(\S*)\s+(?:unicast|unreachable) \[(\w+)", line):
                prefix = match[1] or prefix
                key = (prefix, match[2])
                found[key] = {}
            elif match := re.match(r"\s+BGP\.(\w+): (\S.*)", line):
                found[key][match[1]] = match[2]
        return found

    def wait_routes(self, *keys: tuple[str, str]) -> None:
        wait_until(lambda: set(self.routes()) == set(keys), 20, f"the router to have {keys}")

    def wait_up(self, *addresses: str) -> None:
        def up() -> bool:
            return {a for a, peer in peers(self.paths).items() if peer["state"] == "up"} == set(addresses)

        wait_until(up, 20, f"sessions with {addresses}")

    def relay_pid(self) -> int:
        return int(json.loads(self.paths.bgp_told.read_text())["pid"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with contextlib.ExitStack() as stack:
        for name in (site.node, site.router):
            sh("ip", "netns", "add", name)
            stack.callback(sh, "ip", "netns", "del", name)
        sh("ip", "-n", site.node, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", site.router)
        for name, device, addresses in (
            (site.node, "up0", [f"{NODE4}/24", f"{NODE6}/64"]),
            (site.router, "down0", [f"{ROUTER4}/24", f"{LATER4}/24", f"{ROUTER6}/64"]),
        ):
            sh("ip", "-n", name, "link", "set", "lo", "up")
            sh("ip", "-n", name, "link", "set", device, "up")
            for address in addresses:
                sh("ip", "-n", name, "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        stack.callback(lambda: [site.stop(name) for name in list(site.running)])
        site.start_bird("bird", ROUTER)
        site.start_bird("later", LATER)
        yield site


@pytest.fixture
def served(site: Site) -> Site:
    """ExaBGP runs, both sessions stand, and one route of each family is announced."""
    running = site.configure(ROUTER4, ROUTER6)
    site.start_exabgp()
    assert site.want(running, ROUTE4, ROUTE6) == []
    site.wait_up(ROUTER4, ROUTER6)
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    return site
