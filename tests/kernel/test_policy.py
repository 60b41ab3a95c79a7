"""Policy rules, local routes and IPVS time-outs on a real kernel: what is made is what is seen, and the rest stays."""

import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from lbnode.errors import NotReady
from lbnode.ipvs.driver import IpvsDriver
from lbnode.net.policy import PolicyDriver
from lbnode.paths import Paths
from lbnode.plan import Plan, diff
from lbnode.resources import IpvsTimeouts, LocalRoute, Row
from lbnode.roles.l4 import FAIL_RULES

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

ROUTE4, ROUTE6 = LocalRoute("192.0.2.151", "192.0.2.141"), LocalRoute("2001:db8::151", "2001:db8::141")
WANTED: tuple[Row, ...] = (*FAIL_RULES, ROUTE4, ROUTE6)
RULE = "from all fwmark 0 iif lo lookup 77 proto 76"  # ip(8) leaves out a mask of all bits


def ip(*argv: str) -> str:
    return subprocess.run(("ip", *argv), check=True, capture_output=True, text=True).stdout


@pytest.fixture
def told() -> list[set[str]]:
    """What IPVS was told to look up again; the node has its own addresses."""
    ip("link", "add", "wire", "type", "dummy")
    ip("link", "set", "wire", "up")
    for address in ("192.0.2.141/24", "192.0.2.142/24", "2001:db8::141/64"):
        ip("address", "add", address, "dev", "wire", *(["nodad"] if ":" in address else []))
    return []


@pytest.fixture
def driver(told: list[set[str]]) -> PolicyDriver:
    return PolicyDriver(lambda addresses: told.append(set(addresses)))


def plan(driver: PolicyDriver | IpvsDriver, wanted: Sequence[Row]) -> Plan:
    observed = driver.observe(wanted)
    return diff(observed.rows, wanted, foreign=observed.foreign)


def run(driver: PolicyDriver | IpvsDriver, wanted: Sequence[Row]) -> list[str]:
    """One pass; the errors. Nothing may be left to do when there are none."""
    errors = [result.error for result in driver.apply(plan(driver, wanted).changes)]
    assert any(errors) or not plan(driver, wanted), plan(driver, wanted)
    return [error for error in errors if error]


def test_what_is_made_is_what_is_seen(driver: PolicyDriver, told: list[set[str]]) -> None:
    assert str(plan(driver, WANTED)).splitlines() == [
        "+ rule ipv4 pref 200 iif lo fwmark 0x0/0xffffffff lookup 77",
        "+ rule ipv6 pref 200 iif lo fwmark 0x0/0xffffffff lookup 77",
        "+ local-route 192.0.2.151 source 192.0.2.141",
        "+ local-route 2001:db8::151 source 2001:db8::141",
    ]
    assert run(driver, WANTED) == []
    assert set(driver.observe(()).rows) == set(WANTED)
    assert ip("rule", "show", "pref", "200").split(":\t")[1].strip() == RULE
    assert ip("-6", "rule", "show", "pref", "200").split(":\t")[1].strip() == RULE
    assert ip("route", "show", "table", "77").strip() == "local 192.0.2.151 dev lo proto 76 scope host src 192.0.2.141"
    assert ip("-6", "route", "show", "table", "77").startswith("local 2001:db8::151 dev lo proto 76 src 2001:db8::141")
    assert told == [{"192.0.2.151", "2001:db8::151"}]
    assert run(driver, ()) == []
    assert "lookup 77" not in ip("rule") + ip("-6", "rule")
    assert (ip("route", "show", "table", "77"), ip("-6", "route", "show", "table", "77")) == ("", "")
    assert len(told) == 2


def test_what_others_made_is_told_and_stays(driver: PolicyDriver) -> None:
    ip("rule", "add", "pref", "150", "from", "192.0.2.9", "lookup", "77")
    ip("rule", "add", "pref", "160", "fwmark", "7", "lookup", "main")
    ip("route", "add", "local", "192.0.2.151", "dev", "lo", "table", "77")
    ip("-6", "route", "add", "2001:db8:9::/64", "dev", "wire", "table", "77")
    ip("route", "add", "192.0.2.99", "dev", "wire", "proto", "76")
    before = ip("rule"), ip("-6", "route", "show", "table", "77"), ip("route")
    assert run(driver, WANTED) == [
        "cannot add local route 192.0.2.151: somebody else's route to it stands in table 77",
    ]
    assert driver.observe(()).foreign == (
        "rule ipv4 pref 150 lookup 77",
        "route 192.0.2.151/32 in table 77",
        "route 2001:db8:9::/64 in table 77",
    )
    assert run(driver, ()) == []
    assert (ip("rule"), ip("-6", "route", "show", "table", "77"), ip("route")) == before
    assert ip("route", "show", "table", "77").startswith("local 192.0.2.151 dev lo scope host")


def test_the_same_rule_of_somebody_else_does_not_stand_for_ours(driver: PolicyDriver) -> None:
    ip("rule", "add", "pref", "200", "iif", "lo", "fwmark", "0/0xffffffff", "lookup", "77")
    assert run(driver, WANTED) == []
    assert run(driver, ()) == []
    assert "from all fwmark 0 iif lo lookup 77\n" in ip("rule")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("rule del pref 200", ["+ rule ipv4 pref 200 iif lo fwmark 0x0/0xffffffff lookup 77"]),
        ("route flush table 77", ["+ local-route 192.0.2.151 source 192.0.2.141"]),
        (
            "route replace local 192.0.2.151 dev lo table 77 proto 76 src 192.0.2.142",
            ["~ local-route 192.0.2.151 source 192.0.2.142 -> 192.0.2.141"],
        ),
        ("route add local 192.0.2.152 dev lo table 77 proto 76", ["- local-route 192.0.2.152"]),
    ],
)
def test_damage_is_seen_and_repaired_in_one_pass(driver: PolicyDriver, damage: str, expected: list[str]) -> None:
    run(driver, WANTED)
    ip(*damage.split())
    assert str(plan(driver, WANTED)).splitlines() == expected
    assert run(driver, WANTED) == []


def test_a_source_that_is_not_this_nodes_is_named(driver: PolicyDriver) -> None:
    assert run(driver, (LocalRoute("192.0.2.151", "192.0.2.200"), ROUTE6)) == [
        "cannot add local route 192.0.2.151: the kernel refuses it; is 192.0.2.200 an address of this node?"
    ]


def test_a_route_that_ipvs_was_not_told_of_is_an_error() -> None:
    def renew(addresses: Collection[str]) -> None:
        raise NotReady("cannot reach IPVS")

    ip("address", "add", "192.0.2.141/24", "dev", "lo")
    changes = diff((), (FAIL_RULES[0], ROUTE4)).changes
    assert [result.error for result in PolicyDriver(renew).apply(changes)] == ["", "cannot reach IPVS"]


def test_the_time_outs_are_set_and_never_removed(tmp_path: Path) -> None:
    driver = IpvsDriver(Paths(run=tmp_path))
    wanted = [IpvsTimeouts(3900, 60, 100)]
    assert str(plan(driver, wanted)) == (
        "~ ipvs-timeouts of this node tcp 900 -> 3900 tcp_fin 120 -> 60 udp 300 -> 100"
    )
    assert run(driver, wanted) == []
    shown = subprocess.run(("ipvsadm", "-L", "--timeout"), check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "Timeout (tcp tcpfin udp): 3900 60 100"
    assert not plan(driver, [])
