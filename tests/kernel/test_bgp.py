"""ExaBGP with its relay beside BIRD, over a veth pair: what is written in `wanted` is what the router has.

The router has three addresses, so it is three peers: one of each family, and one that the node meets later.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.bgp import exabgp
from lbnode.bgp.driver import START_IT, ExabgpDriver, peers
from lbnode.bgp.told import read_told
from lbnode.config.model import Cluster
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths
from lbnode.plan import diff
from lbnode.resources import Announcement, Row, Running
from lbnode.templates import load

pytestmark = pytest.mark.kernel

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


class Site:
    """A node with ExaBGP and a router with BIRD; this class starts and restarts the two programs, as systemd would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = Paths(folder / "etc", folder / "run")
        self.node, self.router = f"bgp{os.getpid()}n", f"bgp{os.getpid()}r"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.driver = ExabgpDriver(self.paths, wait_s=10)

    def configure(self, *addresses: str, hold_time_s: int = 9) -> Running:
        """Writes exabgp.conf with these peers, as apply would, and returns the row that goes with it."""
        cluster = Cluster.model_validate(
            {
                "nodes": {"l4-1": {"role": "l4", "ipv4": NODE4, "ipv6": NODE6}},
                "bgp": {
                    "local_asn": 65010,
                    "hold_time_s": hold_time_s,
                    "peers": {f"p{i}": {"address": a, "asn": 65000} for i, a in enumerate(addresses)},
                },
            }
        )
        text = exabgp.config(load(), cluster, "l4-1", self.paths)
        self.paths.exabgp_config.parent.mkdir(parents=True, exist_ok=True)
        self.paths.exabgp_config.write_text(text)
        assert exabgp.check(self.paths.exabgp_config) == ""
        return Running("exabgp", exabgp.digest(text))

    def want(self, *rows: Row) -> list[str]:
        """One pass of apply; returns what failed."""
        plan = diff(self.driver.observe(rows).rows, rows)
        return [result.error for result in self.driver.apply(plan.changes) if result.error]

    def start_exabgp(self, **settings: str) -> None:
        argv, environment = exabgp.command(self.paths)
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
        process.wait(10)
        (self.folder / f"{name}.ctl").unlink(missing_ok=True)

    def routes(self) -> dict[tuple[str, str], str]:
        """(prefix, protocol) -> next hop, communities, med, as BIRD has them."""
        text = ""
        for control in self.folder.glob("*.ctl"):
            argv = ["birdc", "-s", str(control), "show", "route", "all"]
            text += subprocess.run(argv, check=False, capture_output=True, text=True).stdout
        found: dict[tuple[str, str], str] = {}
        prefix, key = "", ("", "")
        for line in text.splitlines():
            if match := re.match(r"(\S*)\s+unicast \[(\w+)", line):
                prefix = match[1] or prefix
                key = (prefix, match[2])
                found[key] = ""
            elif match := re.match(r"\s+BGP.(next_hop|med|community): (\S.*)", line):
                found[key] = f"{found[key]} {match[2]}".strip()
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


def test_what_is_wanted_reaches_the_router_and_leaves_it(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    graceful = Announcement(VIP4, ROUTER4, NODE4, med=100, communities=("65010:7", "65535:0"))
    assert served.want(running, graceful, ROUTE6) == []
    wait_until(
        lambda: served.routes()[(VIP4, "one4")] == f"{NODE4} 100 (65010,7) (65535,0)", 5, "new attributes on the route"
    )
    assert diff(served.driver.observe((running, graceful, ROUTE6)).rows, (running, graceful, ROUTE6)).changes == ()
    assert served.want(running, ROUTE6) == []
    served.wait_routes((VIP6, "one6"))
    assert served.want(running) == []
    served.wait_routes()


def test_exabgp_that_comes_back_announces_the_same_without_anybodys_help(served: Site) -> None:
    served.stop("exabgp", signal.SIGKILL)
    served.wait_routes()
    wait_until(lambda: peers(served.paths) == {}, 5, "the relay to end with ExaBGP")
    served.start_exabgp()
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))


def test_orders_given_while_exabgp_is_away_are_followed_when_it_starts(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    served.stop("exabgp")
    wait_until(lambda: read_told(served.paths) is None, 5, "the relay to end with ExaBGP")
    served.driver.wait_s = 0.1
    other = Announcement("198.51.100.9/32", ROUTER4, NODE4)
    errors = served.want(running, other)
    assert errors == [
        f"cannot run ExaBGP with configuration {running.config}: it is not running; {START_IT}",
        f"cannot announce 198.51.100.9/32 to {ROUTER4}: ExaBGP is not running; it will announce it when it starts",
    ]
    served.start_exabgp()
    served.wait_routes(("198.51.100.9/32", "one4"))


def test_a_router_that_comes_back_gets_its_routes_again(served: Site) -> None:
    served.stop("bird")
    wait_until(lambda: peers(served.paths)[ROUTER4]["state"] != "up", 20, "the session to be seen down")
    served.start_bird("bird", ROUTER)
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    served.wait_up(ROUTER4, ROUTER6)


def test_a_relay_that_dies_changes_nothing_and_its_successor_knows_what_is_announced(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    old = served.relay_pid()
    os.kill(old, signal.SIGSTOP)  # it sees nothing of what is written now
    served.driver.wait_s = 0.1
    assert served.want(running, ROUTE4) == [f"cannot withdraw {VIP6} to {ROUTER6}: ExaBGP does not follow yet"]
    assert set(served.routes()) == {(VIP4, "one4"), (VIP6, "one6")}
    os.kill(old, signal.SIGKILL)
    served.wait_routes((VIP4, "one4"))
    served.wait_up(ROUTER4, ROUTER6)
    assert served.relay_pid() != old
    assert served.driver.observe((running, ROUTE4)).rows == (running, ROUTE4)


def test_orders_that_make_no_sense_change_nothing_and_are_complained_of(served: Site) -> None:
    served.paths.bgp_wanted.write_text("{")

    def problem() -> str:
        told = read_told(served.paths)
        return told.problem if told else ""

    wait_until(problem, 5, "the relay to complain")
    assert problem().startswith(f"cannot read {served.paths.bgp_wanted}: ")
    assert set(served.routes()) == {(VIP4, "one4"), (VIP6, "one6")}
    assert served.want(served.configure(ROUTER4, ROUTER6), ROUTE4) == []
    served.wait_routes((VIP4, "one4"))
    assert problem() == ""


def test_a_new_peer_comes_with_a_reload_that_leaves_the_other_sessions_alone(served: Site) -> None:
    since = peers(served.paths)[ROUTER4]["since"]
    later = Announcement(VIP4, LATER4, NODE4)
    running = served.configure(ROUTER4, ROUTER6, LATER4)
    assert served.want(running, ROUTE4, ROUTE6, later) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"), (VIP4, "two4"))
    served.wait_up(ROUTER4, ROUTER6, LATER4)
    assert peers(served.paths)[ROUTER4]["since"] == since
    running = served.configure(ROUTER4, ROUTER6)
    assert served.want(running, ROUTE4, ROUTE6) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))


def test_a_changed_hold_time_brings_the_routes_back_after_the_session(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6, hold_time_s=6)
    assert served.want(running, ROUTE4, ROUTE6) == []
    served.wait_up(ROUTER4, ROUTER6)
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))


def test_a_configuration_that_exabgp_refuses_is_an_error_and_announcing_goes_on(served: Site) -> None:
    served.configure(ROUTER4, ROUTER6, LATER4)
    text = served.paths.exabgp_config.read_text()
    served.paths.exabgp_config.write_text(text + "neighbour {\n}\n")
    assert "neighbour" in exabgp.check(served.paths.exabgp_config)
    unusable = Running("exabgp", exabgp.digest(text))
    served.driver.wait_s = 2
    errors = served.want(unusable, ROUTE4)
    assert len(errors) == 1
    assert f"ExaBGP does not take configuration {unusable.config}" in errors[0]
    served.wait_routes((VIP4, "one4"))
    served.paths.exabgp_config.write_text(text)
    served.stop("exabgp")
    served.start_exabgp()
    served.driver.wait_s = 10
    assert served.want(unusable, ROUTE4) == []
    served.wait_routes((VIP4, "one4"))


def test_a_peer_that_exabgp_does_not_have_is_a_refusal_with_its_reason(served: Site) -> None:
    running, stray = served.configure(ROUTER4, ROUTER6), Announcement(VIP4, LATER4, NODE4)
    errors = served.want(running, ROUTE4, ROUTE6, stray)
    assert errors == [f"cannot announce {VIP4} to {LATER4}: ExaBGP refused it: it has no neighbor {LATER4}"]
    assert served.want(running, ROUTE4, ROUTE6) == []


def test_a_reload_takes_while_a_peer_is_down_and_routes_wait_for_it(served: Site) -> None:
    gone = "192.0.2.99"
    running = served.configure(ROUTER4, ROUTER6, gone)
    assert served.want(running, ROUTE4, ROUTE6, Announcement(VIP4, gone, NODE4)) == []
    running = served.configure(ROUTER4, ROUTER6, gone, LATER4)
    rows = (running, ROUTE4, ROUTE6, Announcement(VIP4, gone, NODE4), Announcement(VIP4, LATER4, NODE4))
    assert served.want(*rows) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"), (VIP4, "two4"))


def test_an_exabgp_that_was_told_not_to_answer_is_told_all_the_same(site: Site) -> None:
    running = site.configure(ROUTER4, ROUTER6)
    site.start_exabgp(exabgp_api_ack="false")
    assert site.want(running, ROUTE4, ROUTE6) == []
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    assert site.want(running, ROUTE4) == []
    site.wait_routes((VIP4, "one4"))
    running = site.configure(ROUTER4, ROUTER6, LATER4)
    assert site.want(running, ROUTE4, Announcement(VIP4, LATER4, NODE4)) == []
    site.wait_routes((VIP4, "one4"), (VIP4, "two4"))
