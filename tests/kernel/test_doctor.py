"""The doctor beside real devices and settings: a healthy node, then one thing broken at a time."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cluster
import pytest

from lbnode import reconcile
from lbnode.chance import kernel
from lbnode.chance.driver import ChanceDriver
from lbnode.cli import run
from lbnode.files import FileDriver
from lbnode.haproxy import program
from lbnode.haproxy.runtime import NotReady, Runtime
from lbnode.lab import libc
from lbnode.lab.wait import wait_until
from lbnode.maintenance.state import READY
from lbnode.net.links import LinkDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.node import Identity, desired_state, load_cluster
from lbnode.paths import Paths
from lbnode.resources import Address, File, Link, Sysctl
from lbnode.roles.inputs import Desired

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

OWN = {"l4-1": ("192.0.2.137", "2001:db8:c000:280::137"), "l7-1": ("192.0.2.193", "2001:db8:c000:280::193")}
Bad = dict[str, tuple[str, str, str]]


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def put(name: str, value: int) -> None:
    Path("/proc/sys/net", name).write_text(str(value))


SECOND_CHANCE = "second_chance: {enabled: false}\n"
"""It has a test of its own."""


class Host:
    """A node whose kernel settings, devices, VIPs and files are right, with an uplink and default routes."""

    def __init__(self, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.paths, self.capsys = Paths(folder, folder / "run"), capsys
        self.options = ["--node", name, "--etc-dir", str(folder), "--run-dir", str(self.paths.run)]
        self.paths.cluster_file.write_text(cluster.TEXT + SECOND_CHANCE)
        ip("link add up0 type veth peer name far")
        for device in ("up0", "far"):
            ip(f"link set {device} up")
        for address, gateway in zip(OWN[name], ("192.0.2.129", "2001:db8:c000:280::1"), strict=True):
            ip(f"address add {address}/{64 if ':' in address else 24} dev up0 {'nodad' if ':' in address else ''}")
            ip(f"{'-6' if ':' in address else '-4'} route add default via {gateway}")
        subprocess.run(["modprobe", "ip_vs_rr"], check=True)  # what probes go through; no pass is made of them here
        self.identity = Identity(name, "l4" if name == "l4-1" else "l7", self.paths)
        self.make()

    def make(self) -> None:
        whole = desired_state(self.identity, load_cluster(self.identity), READY, {})
        rows = tuple(row for row in whole.rows if isinstance(row, Sysctl | Link | Address | File))
        checkers = {"haproxy": lambda path: "", "exabgp": lambda path: ""}
        done = reconcile.run(Desired(rows), [SysctlDriver(), LinkDriver(), FileDriver(checkers)])
        assert done.errors == []

    def bad(self, code: int) -> Bad:
        """What is not ok: name -> verdict, what was seen, the mend."""
        assert run(["doctor", "--json", *self.options]) == code
        findings = json.loads(self.capsys.readouterr().out)["findings"]
        return {one["name"]: (one["verdict"], one["seen"], one["mend"]) for one in findings if one["verdict"] != "ok"}


@contextmanager
def haproxy(paths: Paths) -> Iterator[None]:
    program.prepare(paths)
    running = subprocess.Popen(program.command(paths), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return bool(Runtime(paths.haproxy_socket).info())
        except NotReady:
            return False

    try:
        wait_until(answers, 20, "HAProxy to answer")
        yield
    finally:
        running.terminate()
        running.wait(20)


L7_BREAKS = [
    ("net: ipv4/conf/lb-ipip/rp_filter 1", "rp_filter lb-ipip", "fail", "lbnode apply --role l7; it sets all and"),
    ("net: ipv4/conf/up0/rp_filter 1", "rp_filter up0", "warn", "sysctl -w net.ipv4.conf.up0.rp_filter=0, and"),
    ("net: ipv6/ip_nonlocal_bind 0", "sysctl net.ipv6.ip_nonlocal_bind", "fail", "lbnode apply --role l7; if it"),
    ("address del 198.51.100.1/32 dev lb-vip", "vips", "fail", "lbnode apply --role l7"),
    ("link del lb-ipip", "tunnel lb-ipip", "fail", "lbnode apply --role l7"),
    ("link set lb-ip6 down", "tunnel lb-ip6", "fail", "lbnode apply --role l7"),
    ("link del lb-vip", "device lb-vip", "fail", "lbnode apply --role l7"),
    ("address add 198.51.100.1/32 dev lo", "left alone", "warn", "move it away when it is a mistake"),
]


def test_an_l7_node_broken_one_thing_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host("l7-1", tmp_path, capsys)
    with haproxy(host.paths):
        assert host.bad(0) == {}
        assert run(["doctor", *host.options]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(" ok, 0 warnings, 0 failures")
        for command, name, verdict, mend in L7_BREAKS:
            if command.startswith("net: "):
                setting, value = command.removeprefix("net: ").split()
                put(setting, int(value))
            else:
                ip(command)
            found = host.bad(1 if verdict == "fail" else 0)
            assert list(found) == [name], command
            assert (found[name][0], found[name][2][: len(mend)]) == (verdict, mend), command
            host.make()
            put("ipv4/conf/up0/rp_filter", 0)
            if command.endswith("dev lo"):
                ip(command.replace("address add", "address del"))
        ip("link set up0 mtu 1400")
        found = host.bad(0)
        assert {name: verdict for name, (verdict, _, _) in found.items()} == {"mss ipv4": "warn", "mss ipv6": "warn"}
        assert found["mss ipv4"][2].startswith("say `tunnel: {mtu: 1400, clamp_mss: true}` in the cluster file; in a")
        assert found["mss ipv6"][1].startswith("1340 at 2001:db8:c633:6401::1 told to clients, 1300 fits into the")
        ip("link set up0 mtu 1500")
        assert host.bad(0) == {}
    found = host.bad(1)
    assert list(found) == ["haproxy runs"]
    assert "systemctl start lbnode-haproxy" in found["haproxy runs"][2]


def test_a_second_chance_that_is_not_possible_and_one_that_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SECOND_CHANCE", "")
    monkeypatch.setattr(kernel, "_allowed", set())  # other tests of this process have had a second chance
    host = Host("l7-1", tmp_path, capsys)
    with haproxy(host.paths):
        found = host.bad(0)["second chance"]
        assert found[0] == "warn"
        assert found[1].startswith(
            "there is no BPF file system at /sys/fs/bpf: mount -t bpf bpf /sys/fs/bpf; flows that"
        )
        libc.mount("bpf", "/sys/fs/bpf", "bpf")
        try:
            assert host.bad(0)["second chance"][1].startswith("not in force; flows that ECMP moves")
            whole = desired_state(host.identity, load_cluster(host.identity), READY, {})
            driver = ChanceDriver(host.paths.bpf)
            rows = Desired(tuple(row for row in whole.rows if isinstance(row, driver.kinds)))
            assert reconcile.run(rows, [driver]).errors == []
            # This kernel has IPv6 as a module; one that has it built in has nothing to say.
            left = host.bad(0)
            is_module = Path("/sys/module/ipv6/initstate").exists()
            assert list(left) == (["second chance ipv6"] if is_module else [])
            assert all("cannot check IPv6 SYN cookies" in seen for _, seen, _ in left.values())
            assert reconcile.run(Desired(), [driver]).errors == []
        finally:
            subprocess.run(["umount", "/sys/fs/bpf"], check=True)


def test_an_l4_node_broken_one_thing_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No ExaBGP runs beside it: that is said throughout, and nothing else while all is well."""
    host = Host("l4-1", tmp_path, capsys)
    healthy = host.bad(1)
    assert {name: verdict for name, (verdict, _, _) in healthy.items()} == {
        "exabgp runs": "fail",
        "bgp r1 192.0.2.129": "unknown",
        "bgp r1-6 2001:db8:c000:280::1": "unknown",
    }

    def more() -> Bad:
        return {name: found for name, found in host.bad(1).items() if name not in healthy}

    put("ipv4/vs/sloppy_tcp", 0)
    assert more() == {
        "sysctl net.ipv4.vs.sloppy_tcp": (
            "fail",
            "0, wanted 1: flows that another L4 node has scheduled are dropped here",
            "lbnode apply --role l4; if it comes back, look who sets it in /etc/sysctl.d/",
        )
    }
    host.make()
    put("ipv4/conf/all/rp_filter", 1)
    assert list(more()) == ["rp_filter up0"]
    host.make()
    ip("address del 2001:db8:c633:6401::4/128 dev lb-vip")
    ((name, (verdict, seen, mend)),) = more().items()
    assert (name, verdict, mend) == ("vips", "fail", "lbnode apply --role l4")
    assert seen == "1 of 3 missing: 2001:db8:c633:6401::4 on lb-vip: packets to them are not taken"
    host.make()
    ip("-6 route del default")
    ((name, (verdict, seen, mend)),) = more().items()
    assert (name, verdict) == ("accept_ra up0", "warn")
    assert mend.startswith("sysctl -w net.ipv6.conf.up0.accept_ra=2, and the same line in /etc/sysctl.d/")
    ip("-6 route add default via 2001:db8:c000:280::1")
    assert more() == {}


def test_the_narrowest_way_to_the_real_servers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host("l4-1", tmp_path, capsys)

    def mtu() -> dict[str, tuple[str, str]]:
        found = host.bad(1)
        return {
            name: (found[name][0], found[name][1].split(",")[0]) for name in found if name.startswith(("mtu", "rou"))
        }

    assert mtu() == {}
    ip("route add 192.0.2.194 dev up0 mtu 1450")
    assert mtu() == {"mtu ipv4": ("warn", "1450 on up0 to 192.0.2.194")}
    ip("link set up0 mtu 1400")
    assert mtu() == {
        "mtu ipv4": ("warn", "1400 on up0 to 192.0.2.193"),
        "mtu ipv6": ("warn", "1400 on up0 to 2001:db8:c000:280::193"),
    }
    ip("link set up0 mtu 1300")
    assert mtu()["mtu ipv6"] == ("fail", "1300 on up0 to 2001:db8:c000:280::193")
    ip("link set up0 mtu 1540")
    ip("route del 192.0.2.194 dev up0")
    ip("route add unreachable 192.0.2.194")
    assert mtu() == {"route ipv4": ("fail", "no route to 192.0.2.194")}
