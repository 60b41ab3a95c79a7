"""A network in which any link can be narrow, with nodes as the roles want them, for the tests of path MTU.

                        street             1500 or 1400          core, 1500 or 1400
    client ------- outer router ------- inner router ---+--- a, b      (L4)
                                                        +--- s1, s2    (real servers; or behind the inner router)

Clients' packets go through one L4 node; the inner router's own packets, its ICMP errors, go through the other.
"""

import array
import fcntl
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.links import Port, Route, connect, in_node, index_of, lan, route
from lbnode.lab.namespaces import Node
from lbnode.net.fou import FouDriver
from lbnode.net.links import LinkDriver
from lbnode.net.policy import PolicyDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.reconcile import run
from lbnode.resources import Row
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs
from lbnode.roles.mss import mss
from lbnode.templates import load

TEXT = """
bgp: {{local_asn: 65001, peers: {{r4: {{address: 192.0.2.1, asn: 65000}}, r6: {{address: "2001:db8::1", asn: 65000}}}}}}
nodes:
  a: {{role: l4, ipv4: 192.0.2.141, ipv6: "2001:db8::141"}}
  b: {{role: l4, ipv4: 192.0.2.142, ipv6: "2001:db8::142"}}
  s1: {{role: backend, ipv4: {four}.151, ipv6: "{six}::151"}}
  s2: {{role: backend, ipv4: {four}.152, ipv6: "{six}::152"}}
services:
  echo: {{vips: [198.51.100.1, "2001:db8:5::1"], pool: echo, through: backend, ipvs: {{tunnel: {tunnel}}}}}
pools:
  echo: {{check: {{type: tcp}}}}
"""
VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
CLIENT = {4: "203.0.113.9", 6: "2001:db8:7::9"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
MEGABYTE, NARROW, WIDE = 1_000_000, 1400, 1500
PATIENCE_S = 20.0
ERRORS_TABLE = 99
TEMPLATES = load()


@dataclass
class Site:
    """The whole network."""

    cluster: Cluster
    nodes: dict[str, Node]
    listeners: list[tuple[int, socket.socket]]

    def mtu(self, *ends: tuple[str, str], mtu: int = NARROW) -> None:
        for node, device in ends:
            set_mtu = partial(_set_mtu, device=device, mtu=mtu)
            in_node(self.nodes[node], set_mtu)

    def steer(self, packets: str, errors: str) -> None:
        """Clients' packets through one L4 node, the router's ICMP errors through another."""
        for version, bits in ((4, 32), (6, 128)):
            for name, table in ((packets, 254), (errors, ERRORS_TABLE)):
                own = str(self.cluster.nodes[name].address(version))
                route(self.nodes["inner"], Route(f"{VIP[version]}/{bits}", (own,), table=table))

    def tell(self) -> None:
        """The real servers tell the MSS that the cluster file makes of it, as HAProxy does."""
        for version, listener in self.listeners:
            value = mss(self.cluster, self.cluster.services["echo"], version)
            assert value
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, value)

    def connect(self, version: int, patience_s: float) -> socket.socket:
        made = self.nodes["client"].call(lambda: socket.socket(FAMILY[version]))
        made.settimeout(patience_s)
        made.connect((VIP[version], 80))
        return made

    def upload(self, version: int, patience_s: float = PATIENCE_S) -> str:
        """The real server that got it all; empty when the flow stalls."""
        with self.connect(version, patience_s) as end, suppress(TimeoutError):
            end.sendall(b"u" + bytes(MEGABYTE))
            return end.recv(10).decode()
        return ""

    def download(self, version: int, patience_s: float = PATIENCE_S) -> str:
        """The real server whose answer came whole; empty when the flow stalls."""
        got = b""
        with self.connect(version, patience_s) as end, suppress(TimeoutError):
            end.sendall(b"d")
            while data := end.recv(1 << 16):
                got += data
        return got[:2].decode() if len(got) == MEGABYTE else ""

    def learned(self, node: str, version: int) -> int:
        """The path MTU to the client that a real server has learned from an ICMP error; 0 when it has not."""
        words = ["route", "get", CLIENT[version], "from", VIP[version]]
        shown = self.nodes[node].run(("ip", f"-{version}", *words), check=True).stdout.split()
        return int(shown[shown.index("mtu") + 1]) if "mtu" in shown else 0

    def forget(self) -> None:
        for name in ("client", "s1", "s2"):
            for version in (4, 6):
                self.nodes[name].run(("ip", f"-{version}", "route", "flush", "cache"), check=True)


def _set_mtu(netlink: Any, device: str, mtu: int) -> None:
    netlink.link("set", index=index_of(netlink, device), mtu=mtu)


def serve(listener: socket.socket, name: str) -> None:
    """A thread for each flow, until the listener is closed."""
    while True:
        try:
            end, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(end, name), daemon=True).start()


def answer(end: socket.socket, name: str) -> None:
    """`u` and a megabyte is answered with the name; `d` with a megabyte that begins with it."""
    with end, suppress(OSError):
        end.settimeout(PATIENCE_S)
        if end.recv(1) == b"u":
            got = 0
            while got < MEGABYTE and (data := end.recv(1 << 16)):
                got += len(data)
            end.sendall(name.encode())
        else:
            end.sendall(name.encode().ljust(MEGABYTE))


def _prepare(cluster: Cluster, name: str, folder: Path) -> None:
    """Makes a node what its role wants it to be, as far as the kernel goes."""
    paths = Paths(run=folder / name)
    ipvs = IpvsDriver(paths)
    drivers: list[Any] = [SysctlDriver(), LinkDriver(), FouDriver(paths)]
    drivers += [PolicyDriver(ipvs.renew), ipvs] if cluster.nodes[name].role == "l4" else []
    kinds: tuple[type[Row], ...] = tuple(kind for driver in drivers for kind in driver.kinds)
    whole = desired(cluster.nodes[name].role, Inputs(cluster, name, templates=TEMPLATES))
    assert run(Desired(tuple(row for row in whole.rows if isinstance(row, kinds))), drivers).errors == []


def _without_offload(device: str) -> None:
    """Packets as they are on a wire: none larger than the MTU (linux/ethtool.h: TSO, GSO, GRO)."""

    with socket.socket() as channel:
        for command in (0x1F, 0x24, 0x2C):
            off = array.array("B", struct.pack("II", command, 0))
            fcntl.ioctl(channel, 0x8946, struct.pack("16sP16x", device.encode(), off.buffer_info()[0]))


def _lay(cluster: Cluster, nodes: dict[str, Node], rear: bool) -> None:
    def ports(names: Sequence[str]) -> list[Port]:
        own = cluster.nodes
        return [Port(nodes[name], "eth0", (f"{own[name].ipv4}/24", f"{own[name].ipv6}/64")) for name in names]

    street = Port(nodes["outer"], "street", ("203.0.113.1/24", "2001:db8:7::1/64"))
    connect(Port(nodes["client"], "eth0", (f"{CLIENT[4]}/24", f"{CLIENT[6]}/64")), street)
    middle = Port(nodes["outer"], "middle", ("198.18.0.1/24", "2001:db8:9::1/64"))
    connect(middle, Port(nodes["inner"], "middle", ("198.18.0.2/24", "2001:db8:9::2/64")))
    core = Port(nodes["inner"], "core", ("192.0.2.1/24", "2001:db8::1/64"))
    lan(nodes["fabric"], "core", [core, *ports(("a", "b") if rear else ("a", "b", "s1", "s2"))])
    if rear:
        own = Port(nodes["inner"], "rear", ("192.0.3.1/24", "2001:db8:3::1/64"))
        lan(nodes["fabric"], "rear", [own, *ports(("s1", "s2"))])
    behind = ("192.0.3.1", "2001:db8:3::1") if rear else ("192.0.2.1", "2001:db8::1")
    ways = {"client": ("203.0.113.1", "2001:db8:7::1"), "outer": ("198.18.0.2", "2001:db8:9::2")}
    ways |= {"a": ("192.0.2.1", "2001:db8::1"), "b": ("192.0.2.1", "2001:db8::1"), "s1": behind, "s2": behind}
    ways |= {"inner": ("198.18.0.1", "2001:db8:9::1")}
    for name, (four, six) in ways.items():
        route(nodes[name], Route("0.0.0.0/0", (four,)), Route("::/0", (six,)))
    for name in ("outer", "inner"):
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            nodes[name].call(lambda setting=setting: Path("/proc/sys/net", setting).write_text("1"))  # type: ignore[misc]
    for family in ("-4", "-6"):
        rule = ("ip", family, "rule", "add", "pref", "50", "iif", "lo", "lookup", str(ERRORS_TABLE))
        nodes["inner"].run(rule, check=True)


def build(stack: ExitStack, folder: Path, rear: bool = False, tunnel: str = "ipip") -> Site:
    modules = ("ip_vs", "ip_vs_mh", "ipip", "ip6_tunnel", "ip_gre", "ip6_gre", "fou")
    subprocess.run(("modprobe", "-a", *modules), check=True)
    four, six = ("192.0.3", "2001:db8:3") if rear else ("192.0.2", "2001:db8")
    cluster = parse(TEXT.format(four=four, six=six, tunnel=tunnel))
    names = ("fabric", "client", "outer", "inner", *cluster.nodes)
    nodes = {name: stack.enter_context(Node(name, private=False)) for name in names}
    _lay(cluster, nodes, rear)
    for name in cluster.nodes:
        nodes[name].call(partial(_prepare, cluster, name, folder))
    for name in ("client", *cluster.nodes):
        nodes[name].call(partial(_without_offload, "eth0"))
    listeners = []
    for name in ("s1", "s2"):
        for version in (4, 6):
            listener = nodes[name].call(lambda version=version: socket.socket(FAMILY[version]))  # type: ignore[misc]
            listener.bind((VIP[version], 80))
            listener.listen(16)
            stack.callback(listener.close)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=serve, args=(listener, name), daemon=True).start()
            listeners.append((version, listener))
    site = Site(cluster, nodes, listeners)
    site.steer("a", "a")
    return site
