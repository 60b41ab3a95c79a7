"""A node that leaves, with real programs: agent, ExaBGP with its relay, and a router with BIRD. The node is a backend
that announces itself; an L4 node differs in what it counts, which `tests/lab` shows.

How long a step lasts says the cluster file, which the agent follows: so a step is ended when it has been looked at."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from bgp_site import VIP4, VIP6, Site, sh, site
from test_announce_backend import CLUSTER, Backend

from lbnode.agent import control
from lbnode.bgp.told import read_told
from lbnode.errors import NotReady
from lbnode.lab import links
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.maintenance import files
from lbnode.maintenance.state import READY, parse
from lbnode.net.arrivals import Arrivals

__all__ = ["site"]

pytestmark = pytest.mark.kernel

ROUTES = ((VIP4, "one4"), (VIP6, "one6"))
VIP = VIP4.partition("/")[0]
CLIENT = f"""
import socket, threading
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    while not threading.Event().wait(0.1):
        client.sendto(b"x", ("{VIP}", 9))
"""


class Leaving(Backend):
    """A backend that serves and is announced; `settings` go under `bgp`."""

    def configure(self, settings: str) -> None:
        text = CLUSTER.replace("  local_asn: 65010\n", f"  local_asn: 65010\n  {settings}\n")
        fresh = self.site.paths.cluster_file.with_name(".new")
        fresh.write_text(text)
        fresh.replace(self.site.paths.cluster_file)

    def begin(self, settings: str) -> None:
        self.configure(settings)
        self.start_agent()
        wait_until(self.site.paths.exabgp_config.exists, 20, "the agent to write exabgp.conf")
        self.site.start_exabgp()
        self.start_web()
        self.site.wait_routes(*ROUTES)

    def status(self) -> dict:
        try:
            return control.ask(self.site.paths, "status") or {}
        except NotReady:
            return {}

    def phase(self) -> str:
        return (self.status().get("leaving") or {}).get("phase", "")

    def marked(self) -> bool:
        found = self.site.routes()
        return set(found) == set(ROUTES) and all("(65535,0)" in words for words in found.values())

    def as_before(self) -> bool:
        found = self.site.routes()
        return set(found) == set(ROUTES) and not any("(65535,0)" in words for words in found.values())

    def lbnode(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["ip", "netns", "exec", self.site.node, *self.command(*words)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lbnode", *words, *self.options]


@pytest.fixture
def node(site: Site) -> Iterator[Leaving]:
    (site.folder / "empty").mkdir()
    return Leaving(site)


def test_first_a_second_choice_then_withdrawn_then_without_packets(node: Leaving) -> None:
    site = node.site
    node.begin("leaving: {step_s: 3600, limit_s: 60}")
    sessions = {address: peer["since"] for address, peer in node.status()["peers"].items()}
    sh("ip", "-n", site.router, "route", "add", VIP4, "via", "192.0.2.11")
    site.start("client", ["ip", "netns", "exec", site.router, sys.executable, "-c", CLIENT], {})
    site.paths.disable.touch()
    wait_until(node.marked, 10, "a second choice")
    # Peers hear of it before the pass that follows does.
    wait_until(lambda: node.phase() == "second choice", 10, "the agent to say so")
    text = node.lbnode("status").stdout
    assert "leaving for" in text
    assert "community 65535:0" in text
    node.configure("leaving: {step_s: 0.1, limit_s: 60}")
    site.wait_routes()
    wait_until(lambda: "packets since the last look" in str(node.status()["leaving"]), 10, "a count of packets")
    assert node.phase() == "withdrawn"
    site.stop("client")
    wait_until(lambda: node.phase() == "gone", 15, "the last packet")
    assert node.status()["leaving"]["waits_for"] == "no packet comes any more"
    site.paths.disable.unlink()
    wait_until(node.as_before, 10, "the routes of before")
    wait_until(lambda: node.status().get("leaving", "") is None, 10, "the agent to say so")
    assert {address: peer["since"] for address, peer in node.status()["peers"].items()} == sessions


def test_whoever_dies_meanwhile_the_order_is_the_same(node: Leaving) -> None:
    """The relay, ExaBGP and the agent, each during the step; then it is over, all the same."""
    site = node.site
    node.begin("leaving: {step: med, step_s: 3600, med: 500}")
    files.write(site.paths, parse("drain # disks"))
    wait_until(lambda: all(" 500 " in words for words in site.routes().values()), 10, "a second choice")
    second = site.routes()
    subprocess.run(["kill", "-KILL", str(site.relay_pid())], check=True)
    site.stop("agent", signal.SIGKILL)
    node.start_agent()
    wait_until(lambda: node.status().get("last_pass"), 20, "the new agent")
    assert site.routes() == second
    site.stop("exabgp", signal.SIGKILL)
    site.start_exabgp()
    wait_until(lambda: site.routes() == second, 20, "the routes again")
    assert node.phase() == "second choice"
    node.configure("leaving: {step: med, step_s: 0.1, med: 500}")
    site.wait_routes()
    files.write(site.paths, READY)
    site.wait_routes(*ROUTES)


def test_at_once_and_waiting_for_it(node: Leaving) -> None:
    node.begin("leaving: {step_s: 3600}")
    done = node.lbnode("maint", "--now", "--until-reboot", "--wait", "--timeout", "20s", "--json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["ended"] is True
    assert node.site.routes() == {}
    assert node.site.paths.boot_agent_check.read_text() == "maint # leave=now\n"
    files.write(node.site.paths, READY)
    wait_until(node.as_before, 10, "the routes of before")
    done = node.lbnode("drain", "--wait", "--timeout", "1s")
    assert (done.returncode, "2 VIPs still announced" in done.stdout) == (75, True), done


def test_an_agent_that_is_stopped_leaves_first_if_it_should(node: Leaving) -> None:
    site = node.site
    node.begin("on_stop: withdraw\n  leaving: {step_s: 3600}")
    site.running["agent"].send_signal(signal.SIGTERM)
    wait_until(node.marked, 10, "a second choice")
    assert site.running["agent"].poll() is None
    node.configure("on_stop: withdraw\n  leaving: {step_s: 0.1}")
    assert site.running["agent"].wait(30) == 0
    assert site.routes() == {}
    assert not site.paths.bgp_heartbeat.exists()
    node.configure("on_stop: withdraw\n  leaving: {step_s: 3600}")
    node.start_agent()
    wait_until(node.as_before, 20, "the routes of before")
    assert not site.paths.boot_agent_check.exists()
    # Whoever will not wait says it twice.
    process = site.running["agent"]
    process.send_signal(signal.SIGTERM)
    wait_until(node.marked, 10, "a second choice")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0


def test_an_agent_that_is_gone(node: Leaving) -> None:
    """Stopped and killed, with `withdraw`; `apply` without one is another thing."""
    site = node.site
    node.begin("dead_man: {after_s: 3, then: withdraw}")
    wait_until(site.paths.bgp_heartbeat.exists, 10, "a sign of life")
    for number in (signal.SIGSTOP, signal.SIGKILL):
        site.running["agent"].send_signal(number)
        site.wait_routes()
        told = wait_until(
            lambda: (told := read_told(site.paths)) and told.agent_gone and told, 10, "the relay to say so"
        )
        assert "everything is withdrawn" in told.problem
        if number == signal.SIGSTOP:
            site.running["agent"].send_signal(signal.SIGCONT)
            site.wait_routes(*ROUTES)
    done = node.lbnode("apply", "--role", "backend")
    assert done.returncode == 0, done
    assert not site.paths.bgp_heartbeat.exists()
    assert set(site.routes()) == set(ROUTES)
    wait_until(lambda: (told := read_told(site.paths)) and told.agent_gone is None, 10, "nobody to be missing")


def test_a_vip_that_comes_and_goes_is_a_second_choice_for_a_while(node: Leaving) -> None:
    site = node.site
    node.begin("damping: {flaps: 2, half_life_s: 60, longest_s: 8}")
    for _ in range(2):
        assert node.as_before()
        site.stop("web", signal.SIGKILL)
        site.wait_routes()
        node.start_web()
        site.wait_routes(*ROUTES)
    assert node.marked()
    assert set(node.status()["damped"]) == {VIP, VIP6.partition("/")[0]}
    assert "it has come and gone too often: others are preferred until" in node.lbnode("status").stdout
    wait_until(node.as_before, 25, "the end of it")
    assert node.status()["damped"] == {}


def send(*addresses: str) -> None:
    """Ten datagrams to each."""
    for to in addresses:
        with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(10):
                client.sendto(b"x", (to, 9))


def test_packets_from_outside_are_counted_and_no_others() -> None:
    vips = [ip_address("198.51.100.1"), ip_address("2001:db8:100::1")]
    with Node("here") as here, Node("there") as there:
        links.connect(
            links.Port(here, "eth0", ("192.0.2.1/24", "2001:db8::1/64", "198.51.100.1/32", "2001:db8:100::1/128")),
            links.Port(there, "eth0", ("192.0.2.2/24", "2001:db8::2/64")),
        )
        there.run(["ip", "route", "add", "198.51.100.1", "via", "192.0.2.1"], check=True)
        there.run(["ip", "-6", "route", "add", "2001:db8:100::1", "via", "2001:db8::1"], check=True)
        there.call(lambda: send("192.0.2.1", "2001:db8::1"))  # neighbours know each other
        counted = here.call(lambda: Arrivals(vips))
        there.call(lambda: send("192.0.2.1", "2001:db8::1"))
        here.call(lambda: send("198.51.100.1", "2001:db8:100::1"))
        assert counted.count == 0
        there.call(lambda: send("198.51.100.1"))
        wait_until(lambda: counted.count == 10, 5, "ten packets")
        there.call(lambda: send("2001:db8:100::1"))
        wait_until(lambda: counted.count == 20, 5, "ten more")
        counted.close()
    with Node("many") as many:
        wide = [ip_address(f"2001:db8::{number:x}") for number in range(1, 1000)]
        many.call(lambda: Arrivals(wide)).close()
