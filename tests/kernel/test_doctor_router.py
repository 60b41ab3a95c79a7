"""The doctor on a Linux router: real routes with several next hops, real settings, one thing broken at a time."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import cluster
import pytest

from lbnode.cli import run
from lbnode.net.lookup import Match, NextHop, lookup

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

VIP4, VIP6, DIRECT = "198.51.100.1", "2001:db8:c633:6401::1", "2001:db8:c633:6401::4"
BY = {4: ("192.0.2.137", "192.0.2.138"), 6: ("2001:db8:c000:280::137", "2001:db8:c000:280::138")}
Bad = dict[str, tuple[str, str]]


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def put(name: str, value: int) -> None:
    Path("/proc/sys/net", name).write_text(str(value))


def hops(version: int, *, only: int | None = None) -> str:
    return " ".join(f"nexthop via {via} dev servers" for via in BY[version][: only or len(BY[version])])


@pytest.fixture
def bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[int], Bad]:
    """A router as the cluster file's r1, with everything right; gives what the doctor finds wrong."""
    (tmp_path / "cluster.yaml").write_text(cluster.TEXT)
    for device in ("servers", "clients"):
        ip(f"link add {device} type dummy")
        ip(f"link set {device} up")
    ip("address add 192.0.2.129/25 dev servers")
    ip("address add 2001:db8:c000:280::1/64 dev servers nodad")
    put("ipv4/ip_forward", 1)
    put("ipv6/conf/all/forwarding", 1)
    for family in ("ipv4", "ipv6"):
        put(f"{family}/fib_multipath_hash_policy", 1)
    ip(f"route add {VIP4}/32 {hops(4)}")
    for vip in (VIP6, DIRECT):
        ip(f"-6 route add {vip}/128 {hops(6)}")

    def found(code: int) -> Bad:
        assert run(["doctor", "--role", "router", "--json", "--etc-dir", str(tmp_path)]) == code
        said = json.loads(capsys.readouterr().out)
        assert said["role"] == "router"
        assert all(one["mend"] for one in said["findings"] if one["verdict"] != "ok")
        return {one["name"]: (one["verdict"], one["seen"]) for one in said["findings"] if one["verdict"] != "ok"}

    return found


def test_a_router_broken_one_thing_at_a_time(bad: Callable[[int], Bad]) -> None:
    assert bad(0) == {}
    put("ipv6/fib_multipath_hash_policy", 0)
    assert {name: verdict for name, (verdict, _) in bad(0).items()} == {"hash ipv6": "warn"}
    put("ipv6/fib_multipath_hash_policy", 3)
    assert bad(0) == {}
    put("ipv4/ip_forward", 0)
    assert bad(1)["forwarding ipv4"][0] == "fail"
    put("ipv4/ip_forward", 1)
    ip(f"route replace {VIP4}/32 {hops(4, only=1)}")
    assert bad(0) == {f"route {VIP4}": ("warn", "1 next hops, none by l4-2")}
    ip(f"route del {VIP4}/32")
    assert bad(1) == {f"route {VIP4}": ("fail", "none: its packets are dropped or go elsewhere")}
    ip("route add default via 192.0.2.254")
    assert list(bad(1)) == [f"route {VIP4}"], "a default route is not one to a VIP"
    ip("route add unreachable 198.51.100.0/24")
    assert list(bad(1)) == [f"route {VIP4}"]
    ip(f"route add {VIP4}/32 {hops(4)}")
    assert bad(0) == {}


def test_a_strict_filter_where_real_servers_stand_elsewhere(bad: Callable[[int], Bad]) -> None:
    for name in ("all", "servers", "clients"):
        put(f"ipv4/conf/{name}/rp_filter", 1)
    assert bad(0) == {}, "the way back is the way to the VIP"
    for server in ("192.0.2.193", "192.0.2.194"):
        ip(f"route add {server}/32 dev clients")
    ((name, (verdict, seen)),) = bad(1).items()
    assert (name, verdict) == ("rp_filter clients", "fail")
    assert seen == "1, strict (all 1, clients 1): answers of real servers behind it are dropped"
    put("ipv4/conf/all/rp_filter", 2)
    assert bad(0) == {}


def test_all_next_hops_of_one_address_are_read(bad: Callable[[int], Bad]) -> None:
    for version, vip in ((4, VIP4), (6, VIP6)):
        found = lookup(vip)
        assert found is not None
        assert found.prefix_length == (32 if version == 4 else 128)
        assert sorted(found.next_hops, key=str) == [NextHop(via, "servers") for via in BY[version]]
    assert lookup("192.0.2.194") == Match(25, (NextHop("", "servers"),))
    assert lookup("203.0.113.1") is None
    ip("route add 203.0.113.0/24 via inet6 fe80::1 dev servers")
    assert lookup("203.0.113.1") == Match(24, (NextHop("fe80::1", "servers"),))
    ip("route add blackhole 203.0.113.1/32")
    assert lookup("203.0.113.1") is None
