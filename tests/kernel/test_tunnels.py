"""What real servers need for each kind of tunnel that IPVS sends: devices and ports, with packets through them.

client ---+--- switch ---+--- l4 (IPVS)
                         +--- server (takes the packets out of the tunnel and answers the client itself)
"""

import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from lbnode.lab.links import Port, Route, address, lan, route
from lbnode.lab.namespaces import Node
from lbnode.net.fou import FouDriver
from lbnode.net.links import LinkDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.plan import Plan, diff
from lbnode.resources import Address, FouPort, Link, Row, Sysctl

pytestmark = pytest.mark.kernel

VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
SERVER = {4: "192.0.2.2", 6: "2001:db8::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
GUE_PORT, SIZE, PATIENCE_S = 6080, 20_000, 5.0

VIPS: tuple[Row, ...] = (Link("lb-vip", "dummy"), *(Address(vip, "lb-vip") for vip in VIP.values()))
IPIP, IP6 = Link("lb-ipip", "ipip", SERVER[4]), Link("lb-ip6", "ip6tnl", SERVER[6])
GRE, GRE6 = Link("lb-gre", "gre", SERVER[4]), Link("lb-gre6", "ip6gre", SERVER[6])
PORT4, PORT6 = FouPort(4, GUE_PORT), FouPort(6, GUE_PORT)
RP_FILTERS = tuple(Sysctl(f"net.ipv4.conf.{name}.rp_filter", "0") for name in ("all", "lb-ipip", "lb-gre"))


class Site(NamedTuple):
    """Three machines, and the drivers of the real server."""

    client: Node
    l4: Node
    server: Node
    run: Path

    def drivers(self) -> list[LinkDriver | FouDriver | SysctlDriver]:
        return [FouDriver(Paths(run=self.run)), LinkDriver(), SysctlDriver()]

    def plan(self, wanted: Sequence[Row]) -> Plan:
        rows, foreign = [], []
        for driver in self.drivers():
            mine = [row for row in wanted if isinstance(row, driver.kinds)]
            observed = self.server.call(lambda driver=driver, mine=mine: driver.observe(mine))  # type: ignore[misc]
            rows += observed.rows
            foreign += observed.foreign
        return diff(rows, wanted, foreign=foreign)

    def want(self, *wanted: Row) -> list[str]:
        """What the real server is to have, besides the VIPs; the errors. Without any, nothing is left to do."""
        wanted = (*VIPS, *wanted)
        changes, errors = self.plan(wanted).changes, []
        for change in changes:
            driver = next(driver for driver in self.drivers() if isinstance(change.row, driver.kinds))
            (result,) = self.server.call(lambda driver=driver, change=change: driver.apply([change]))  # type: ignore[misc]
            errors += [result.error] if result.error else []
        assert errors or not self.plan(wanted).changes, self.plan(wanted)
        return errors

    def send_through(self, version: int, tunnel: str) -> None:
        """One destination of IPVS, in this kind of tunnel, as ipvsadm(8) takes it."""
        vip, server = (f"[{words[version]}]:80" if version == 6 else f"{words[version]}:80" for words in (VIP, SERVER))
        self.l4.run(("ipvsadm", "-C"), check=True)
        self.l4.run(("ipvsadm", "-A", "-t", vip, "-s", "rr"), check=True)
        self.l4.run(("ipvsadm", "-a", "-t", vip, "-r", server, "-i", *tunnel.split()), check=True)

    def echoes(self, version: int, patience_s: float = PATIENCE_S) -> bool:
        """Whether SIZE bytes go to the VIP and come back."""
        with self.client.call(lambda: socket.socket(FAMILY[version])) as end, suppress(TimeoutError, OSError):
            end.settimeout(patience_s)
            end.connect((VIP[version], 80))
            end.sendall(bytes(SIZE))
            got = 0
            while got < SIZE:
                got += len(end.recv(1 << 16)) or SIZE * 2
            return got == SIZE
        return False


def serve(listener: socket.socket) -> None:
    """Sends back what comes, until the listener is closed."""
    while True:
        try:
            end, _ = listener.accept()
        except OSError:
            return
        with end, suppress(OSError):
            end.settimeout(PATIENCE_S)
            while data := end.recv(1 << 16):
                end.sendall(data)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    modules = ("ip_vs", "ip_vs_rr", "ipip", "ip6_tunnel", "ip_gre", "ip6_gre", "fou")
    subprocess.run(("modprobe", "-a", *modules), check=True)
    with ExitStack() as stack:
        fabric, client, l4, server = (
            stack.enter_context(Node(name, private=False)) for name in ("fabric", "client", "l4", "server")
        )
        ends = zip((client, l4, server), (9, 1, 2), strict=True)
        lan(fabric, "sw", [Port(node, "eth0", (f"192.0.2.{n}/24", f"2001:db8::{n}/64")) for node, n in ends])
        route(client, Route("198.51.100.0/24", ("192.0.2.1",)), Route("2001:db8:5::/48", ("2001:db8::1",)))
        address(l4, "lo", f"{VIP[4]}/32", f"{VIP[6]}/128")
        made = Site(client, l4, server, tmp_path)
        server.call(lambda: Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1"))
        server.call(lambda: Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1"))
        for version in (4, 6):
            listener = server.call(lambda version=version: socket.socket(FAMILY[version]))  # type: ignore[misc]
            listener.bind((VIP[version], 80))
            listener.listen(16)
            stack.callback(listener.close)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield made


CHECKED, CHECKED6 = replace(GRE, checksum=True), replace(GRE6, checksum=True)
GUE = f"--tun-type gue --tun-port {GUE_PORT}"
ENOUGH: list[tuple[int, str, tuple[Row, ...]]] = [
    (4, "--tun-type ipip", (IPIP, *RP_FILTERS[:2])),
    (6, "--tun-type ipip", (IP6,)),
    (4, "--tun-type gre", (GRE, RP_FILTERS[0], RP_FILTERS[2])),
    (6, "--tun-type gre", (GRE6,)),
    (4, "--tun-type gre --tun-csum", (CHECKED, RP_FILTERS[0], RP_FILTERS[2])),
    (6, "--tun-type gre --tun-csum", (CHECKED6,)),
    (4, GUE, (IPIP, PORT4, *RP_FILTERS[:2])),
    (6, GUE, (IP6, PORT6)),
    (4, f"{GUE} --tun-csum", (IPIP, PORT4, *RP_FILTERS[:2])),
    (6, f"{GUE} --tun-csum", (IP6, PORT6)),
    (4, f"{GUE} --tun-remcsum", (IPIP, PORT4, *RP_FILTERS[:2])),
    (6, f"{GUE} --tun-remcsum", (IP6, PORT6)),
]


@pytest.mark.parametrize(("version", "tunnel", "rows"), ENOUGH)
def test_what_a_real_server_needs_is_enough(site: Site, version: int, tunnel: str, rows: tuple[Row, ...]) -> None:
    assert site.want(*rows) == []
    site.send_through(version, tunnel)
    assert site.echoes(version)


@pytest.mark.parametrize(
    ("version", "tunnel", "rows"),
    [
        (4, "--tun-type gre --tun-csum", (GRE,)),
        (6, "--tun-type gre --tun-csum", (GRE6,)),
        (4, "--tun-type gre", (CHECKED,)),
        (6, "--tun-type gre", (CHECKED6,)),
        (4, GUE, (PORT4,)),
        (4, GUE, (IPIP, PORT6)),
        (6, GUE, (PORT6,)),
        (6, GUE, (IP6, PORT4)),
    ],
)
def test_without_any_of_it_nothing_arrives(site: Site, version: int, tunnel: str, rows: tuple[Row, ...]) -> None:
    names = ("all", *(row.name for row in rows if isinstance(row, Link)))
    assert site.want(*rows, *(row for row in RP_FILTERS if row.name.split(".")[3] in names)) == []
    site.send_through(version, tunnel)
    assert not site.echoes(version, 0.5)


def test_all_kinds_of_tunnels_stand_beside_each_other(site: Site) -> None:
    assert site.want(IPIP, IP6, GRE, GRE6, PORT4, PORT6, *RP_FILTERS) == []
    for version, tunnel, _ in ENOUGH:
        site.send_through(version, tunnel)
        assert site.echoes(version, 0.5 if "gre --tun-csum" in tunnel else PATIENCE_S) == (
            "gre --tun-csum" not in tunnel
        )


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        ("ip link set lb-gre type gre local 192.0.2.3", "~ link lb-gre local 192.0.2.3 -> 192.0.2.2"),
        (
            "ip link set lb-gre type gre local 192.0.2.2 icsum",
            "~ link lb-gre checksum wanted -> none",
        ),
        (
            "ip link set lb-gre6 type ip6gre local 2001:db8::2 icsum",
            "~ link lb-gre6 checksum wanted -> none",
        ),
        (
            "ip link del lb-gre6; ip link add lb-gre6 up type ip6gre local 2001:db8::2 remote 2001:db8::9",
            "~ link lb-gre6 local 2001:db8::2 remote 2001:db8::9 -> 2001:db8::2",
        ),
        (
            "ip link del lb-gre; ip link add lb-gre up type gre local 192.0.2.2 ikey 7 iseq",
            "~ link lb-gre local 192.0.2.2 key seq -> 192.0.2.2",
        ),
        ("ip link del lb-gre; ip link add lb-gre up type gre external", "~ link lb-gre local external -> 192.0.2.2"),
        ("ip fou del port 6080", "+ fou-port 4 6080"),
    ],
)
def test_damage_is_seen_and_repaired_in_one_pass(site: Site, damage: str, shown: str) -> None:
    wanted = (GRE, GRE6, PORT4, PORT6)
    assert site.want(*wanted) == []
    site.server.run(("sh", "-ec", damage), check=True)
    assert str(site.plan((*VIPS, *wanted))).splitlines() == [shown]
    assert site.want(*wanted) == []


def test_only_ports_of_ours_are_closed(site: Site) -> None:
    site.server.run(("ip", "fou", "add", "port", "7000", "gue"), check=True)
    assert site.want(PORT4, PORT6) == []
    assert site.want(PORT6) == []
    shown = site.server.run(("ip", "fou", "show"), check=True).stdout
    assert sorted(line.strip() for line in shown.splitlines()) == ["port 6080 gue -6", "port 7000 gue"]
    assert site.want() == []
    assert site.server.run(("ip", "fou", "show"), check=True).stdout.strip() == "port 7000 gue"


def test_a_port_that_is_taken_is_named(site: Site) -> None:
    with site.server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("", GUE_PORT))
        assert site.want(PORT4) == ["cannot open UDP port 6080 of IPv4 for GUE: another socket has it"]
    site.server.run(("ip", "fou", "add", "port", str(GUE_PORT), "ipproto", "4"), check=True)
    assert str(site.plan((*VIPS, PORT4))).splitlines()[-1] == "  left alone: UDP port 6080 of IPv4 (not GUE)"
