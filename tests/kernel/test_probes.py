"""Probes through the tunnel, on a real kernel: from an L4 node to a VIP on one real server, by IPVS and a mark.

    l4 ---+--- switch ---+--- s1   (the VIPs, decapsulation, a web server that says its name)
                         +--- s2

The nodes are what the roles want them to be.
"""

import asyncio
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lbnode.config.load import parse
from lbnode.health.probes import Client, ask
from lbnode.health.state import Health, Outcome, Probe
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab import links
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.net.links import LinkDriver
from lbnode.net.policy import PolicyDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.reconcile import run
from lbnode.resources import Row
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs
from lbnode.roles.prober import Prober
from lbnode.templates import load

pytestmark = pytest.mark.kernel

TEXT = """
bgp: {local_asn: 65001, peers: {r4: {address: 192.0.2.1, asn: 65000}, r6: {address: "2001:db8::1", asn: 65000}}}
nodes:
  l4: {role: l4, ipv4: 192.0.2.141, ipv6: "2001:db8::141"}
  s1: {role: backend, ipv4: 192.0.2.151, ipv6: "2001:db8::151"}
  s2: {role: backend, ipv4: 192.0.2.152, ipv6: "2001:db8::152"}
services:
  web: {vips: [198.51.100.1, "2001:db8:5::1"], pool: web, through: backend}
pools:
  web: {check: {type: http, path: /health}}
"""
CLUSTER = parse(TEXT)
PROBER = Prober(CLUSTER, "l4")
SERVERS = ("s1", "s2")
VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
TUNNEL = {4: "lb-ipip", 6: "lb-ip6"}
PREFIX = {4: 32, 6: 128}
TIMEOUT_S = 0.4
SCRIPT = """#!/usr/bin/env python3
import os, socket, sys
own = socket.socket(socket.AF_INET6 if os.environ["LBNODE_FAMILY"] == "6" else socket.AF_INET)
own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(os.environ["LBNODE_MARK"]))
own.bind((os.environ["LBNODE_SOURCE"], 0))
own.connect((os.environ["LBNODE_ADDRESS"], int(os.environ["LBNODE_PORT"])))
own.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(own.makefile().read().split()[-1])
"""


def serve(listener: socket.socket, name: str, stop: threading.Event) -> None:
    """Answers each connection with its name; in a thread, until told to stop."""
    with listener:
        while not stop.is_set():
            if select.select([listener], [], [], 0.1)[0]:
                client, _ = listener.accept()
                client.settimeout(1)
                with client, suppress(OSError):
                    if client.recv(1000):
                        client.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + name.encode())


@dataclass
class Site:
    """The whole network; `drivers` are the L4 node's."""

    nodes: Mapping[str, Node]
    drivers: list[Any]

    def ask(self, *probes: Probe, timeout_s: float = TIMEOUT_S) -> list[Outcome]:
        """One after the other, from the L4 node; again where this machine was too busy to tell."""

        async def told(probe: Probe, client: Client) -> Outcome:
            while "too busy" in (found := await ask(probe, timeout_s, client)).detail:
                pass
            return found

        async def scenario() -> list[Outcome]:
            async with Client() as client:
                return [await told(probe, client) for probe in probes]

        return self.nodes["l4"].call(lambda: asyncio.run(scenario()))

    def run(self, node: str, *argv: str) -> str:
        done = self.nodes[node].call(lambda: subprocess.run(argv, check=True, capture_output=True, text=True))
        return done.stdout

    def entries(self) -> Iterator[tuple[str, int]]:
        """State, and seconds until it is forgotten, of each of IPVS's connection entries."""
        for line in self.run("l4", "ipvsadm", "-Lnc").splitlines()[2:]:
            _, expire, state, *_ = line.split()
            minutes, seconds = expire.split(":")
            yield state, 60 * int(minutes) + int(seconds)


def make(node: Node, inputs: Inputs, drivers: list[Any]) -> None:
    """All that the node's role wants of these drivers."""
    kinds: tuple[type[Row], ...] = tuple(kind for driver in drivers for kind in driver.kinds)
    rows = tuple(row for row in desired(inputs.node.role, inputs).rows if isinstance(row, kinds))
    assert node.call(lambda: run(Desired(rows), drivers)).errors == []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    stop, ipvs = threading.Event(), IpvsDriver(Paths(run=tmp_path / "run"))
    with ExitStack() as stack:
        nodes = {name: stack.enter_context(Node(name, private=False)) for name in (*CLUSTER.nodes, "switch")}
        hosts = {name: (f"{node.ipv4}/24", f"{node.ipv6}/64") for name, node in CLUSTER.nodes.items()}
        links.lan(nodes["switch"], "lan", [Port(nodes[name], "eth0", hosts[name]) for name in hosts])
        found = Site(nodes, [SysctlDriver(), LinkDriver(), PolicyDriver(ipvs.renew), ipvs])
        make(nodes["l4"], Inputs(CLUSTER, "l4", templates=load()), found.drivers)
        for name in SERVERS:
            make(nodes[name], Inputs(CLUSTER, name), [SysctlDriver(), LinkDriver()])
            for family, any_address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):

                def listen(family: socket.AddressFamily = family, address: str = any_address) -> socket.socket:
                    return socket.create_server((address, 80), family=family, backlog=256)

                thread = threading.Thread(target=serve, args=(nodes[name].call(listen), name, stop))
                thread.start()
                stack.callback(thread.join)
        stack.callback(stop.set)
        yield found


def probe(server: str, version: int, **changed: Any) -> Probe:
    """What the role asks of a server, changed."""
    (wanted,) = PROBER.health("web", server, 4 if version == 4 else 6)
    return replace(wanted, **changed)


@pytest.mark.parametrize("version", [4, 6])
def test_a_probe_reaches_the_server_that_it_is_for(site: Site, version: int, tmp_path: Path) -> None:
    for server, other in (SERVERS, SERVERS[::-1]):
        plain, right, wrong = (probe(server, version, body=body) for body in ("", server, other))
        assert [found.detail for found in site.ask(plain, right, wrong)] == [
            "HTTP 200",
            "HTTP 200 with its text",
            f"HTTP 200 without '{other}'",
        ]
        assert site.ask(probe(server, version, kind="tcp")) == [Outcome(True, "connected")]
    script = tmp_path / "check"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    asked = probe("s2", version, kind="script", script=str(script))
    assert site.ask(asked, timeout_s=10) == [Outcome(True, "exit status 0: s2")]


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_wrong_shows(site: Site, version: int) -> None:
    asked, other = probe("s1", version), probe("s2", version)
    nothing = Outcome(False, f"no answer within {TIMEOUT_S} s", silent=True)
    refused, well = Outcome(False, "ECONNREFUSED"), Outcome(True, "HTTP 200")
    vip = f"{VIP[version]}/{PREFIX[version]}"

    def sees(found: Outcome) -> None:
        assert site.ask(asked, other) == [found, well]

    def is_well_again() -> None:
        wait_until(lambda: site.ask(asked) == [well], 20, "the probe to succeed again")

    assert site.ask(probe("s1", version, port=81)) == [refused], "nobody listens"

    site.run("s1", "ip", "address", "del", vip, "dev", "lb-vip")
    sees(nothing)
    site.run("s1", "ip", "address", "add", vip, "dev", "lb-vip")
    is_well_again()

    # For IPv4 the real server says that it has no such tunnel, and IPVS passes that on.
    site.run("s1", "ip", "link", "set", TUNNEL[version], "down")
    sees(refused if version == 4 else nothing)
    site.run("s1", "ip", "link", "set", TUNNEL[version], "up")
    is_well_again()

    links.state(site.nodes["switch"], "lan.1", False)
    sees(nothing)
    links.state(site.nodes["switch"], "lan.1", True)
    is_well_again()


@pytest.mark.parametrize("version", [4, 6])
def test_while_flows_of_a_server_are_ended_its_probes_are_refused(site: Site, version: int) -> None:
    asked = probe("s1", version)
    direct = Probe("tcp", str(CLUSTER.nodes["s1"].address(version)), 80)
    well, refused, connected = Outcome(True, "HTTP 200"), Outcome(False, "ECONNREFUSED"), Outcome(True, "connected")
    assert site.ask(asked, direct) == [well, connected]
    gone = {PROBER.agent("s1", version): Health(False, "", silent=True), asked: Health(False, "", silent=True)}
    make(site.nodes["l4"], Inputs(CLUSTER, "l4", health=gone, templates=load()), site.drivers)
    assert site.ask(asked, direct) == [refused, connected]
    make(site.nodes["l4"], Inputs(CLUSTER, "l4", templates=load()), site.drivers)
    assert site.ask(asked, direct) == [well, connected]


@pytest.mark.parametrize("version", [4, 6])
def test_a_node_without_a_link_blames_nobody(site: Site, version: int) -> None:
    wanted = [probe("s1", version), Probe("agent", str(CLUSTER.nodes["s1"].address(version)), 5555)]
    links.state(site.nodes["switch"], "lan.0", False)
    assert site.ask(*wanted) == [Outcome(None, "eth0 has no carrier")] * 2
    links.state(site.nodes["l4"], "eth0", False)
    assert [found.ok for found in site.ask(*wanted)] == [None, None]


def few_ports(site: Site) -> None:
    site.nodes["l4"].call(lambda: Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40015"))


@pytest.mark.parametrize("version", [4, 6])
def test_no_probe_takes_the_way_of_another(site: Site, version: int) -> None:
    """IPVS finds an entry by addresses and ports. With few ports, those of a server that does not answer would soon be
    drawn for one that does."""
    links.state(site.nodes["switch"], "lan.1", False)
    few_ports(site)
    found = site.ask(*[probe("s1", version), probe("s2", version)] * 25, timeout_s=0.2)
    assert not any(outcome.ok for outcome in found[0::2])
    assert Counter(outcome.detail for outcome in found[1::2]) == {"HTTP 200": 25}
    assert [state for state, _ in site.entries()].count("SYN_RECV") == 1


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(("address", "source"), [("192.0.2.1", ""), ("2001:db8::1", ""), ("192.0.2.1", "127.0.0.1")])
@pytest.mark.parametrize("kind", ["http", "tcp", "agent"])
def test_a_node_without_a_route_blames_nobody(kind: Any, address: str, source: str) -> None:
    async def scenario() -> Outcome:
        async with Client() as client:
            return await ask(Probe(kind, address, 80, source=source), 2, client)

    assert asyncio.run(scenario()) == Outcome(None, "network is unreachable (ENETUNREACH)")


WITHOUT_RIGHTS = """
import asyncio, os
from lbnode.health.probes import Client, ask
from lbnode.health.state import Probe
async def scenario():
    async with Client() as client:
        probes = Probe("tcp", "127.0.0.1", 1), Probe("tcp", "127.0.0.1", 1, mark=7)
        return [await ask(probe, 5, client) for probe in probes]
os.setuid(65534)
print(*(outcome.detail for outcome in asyncio.run(scenario())), sep="\\n")
"""


@pytest.mark.usefixtures("netns")
def test_without_rights_direct_probes_work_and_others_blame_nobody() -> None:
    done = subprocess.run((sys.executable, "-c", WITHOUT_RIGHTS), check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["ECONNREFUSED", "a probe through a tunnel needs root (CAP_NET_ADMIN)"]


def test_probes_leave_little_behind(site: Site) -> None:
    """Few ports: each is soon used for another server, while IPVS still knows it."""
    few_ports(site)
    for version in (4, 6):
        found = site.ask(*[probe(server, version, body=server) for server in SERVERS] * 50)
        assert Counter(outcome.detail for outcome in found) == {"HTTP 200 with its text": 100}
    assert {state for state, _ in site.entries()} == {"CLOSE"}
    assert max(left for _, left in site.entries()) <= 10
