"""IPVS on a real kernel: what is made is what is seen, order and Maglev slots hold, and what is foreign stays."""

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from udpflows import SOURCE_PORTS, flows, lay_routes

from lbnode.errors import NotPermitted
from lbnode.ipvs import codec, rows
from lbnode.ipvs.codec import Command
from lbnode.ipvs.driver import IpvsDriver
from lbnode.ipvs.messages import Request
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.paths import Paths
from lbnode.plan import Change, Plan, diff
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

WEB = ServiceKey("198.51.100.1", "tcp", 80)
WEB6 = ServiceKey("2001:db8:5::1", "tcp", 443)


@pytest.fixture
def driver(tmp_path: Path) -> IpvsDriver:
    return IpvsDriver(Paths(run=tmp_path))


def service(
    key: ServiceKey, addresses: Iterable[str], weights: dict[str, int] | None = None, table_weight: int = 100
) -> list[Row]:
    """A service and its rows in canonical order; `weights` for those that are not at their table weight."""
    order = tuple(addresses)
    weights = weights or {}
    found: list[Row] = [VirtualService(key), DestinationOrder(key, order)]
    found += [
        Destination(key, address, weights.get(address, table_weight), table_weight, serial)
        for serial, address in enumerate(order)
    ]
    return found


def servers(count: int) -> list[str]:
    return [f"192.0.2.{number}" for number in range(1, count + 1)]


def plan(driver: IpvsDriver, wanted: Sequence[Row]) -> Plan:
    observed = driver.observe(wanted)
    return diff(observed.rows, wanted, foreign=observed.foreign)


def converge(driver: IpvsDriver, wanted: Sequence[Row]) -> Plan:
    """One pass without an error, after which nothing is left to do."""
    first = plan(driver, wanted)
    assert [result.error for result in driver.apply(first.changes)] == [""] * len(first.changes)
    assert not plan(driver, wanted), plan(driver, wanted)
    return first


def errors(driver: IpvsDriver, changes: Sequence[Change]) -> list[str]:
    return [result.error for result in driver.apply(changes)]


def ipvsadm(*argv: str) -> str:
    return subprocess.run(("ipvsadm", *argv), check=True, capture_output=True, text=True).stdout


def newest_first() -> list[str]:
    """The IPv4 destinations of all services, in the order of the kernel's list (ipvsadm sorts, /proc does not)."""
    lines = [line.split() for line in Path("/proc/net/ip_vs").read_text().splitlines()]
    return [
        socket.inet_ntop(socket.AF_INET, bytes.fromhex(words[1].split(":")[0]))
        for words in lines
        if words[0] == "->" and len(words[1]) == len("C0000201:0050")
    ]


@pytest.fixture
def routes(netns: None) -> None:
    lay_routes()


def test_what_is_made_is_what_is_seen(driver: IpvsDriver) -> None:
    wanted = [
        *service(WEB, ["192.0.2.3", "192.0.2.1", "192.0.2.2"], {"192.0.2.1": 0, "192.0.2.2": 30}),
        *service(WEB6, ["2001:db8::b", "192.0.2.9", "2001:db8::a"]),
        *service(ServiceKey("198.51.100.1", "udp", 53), ["192.0.2.3", "2001:db8::b"]),
        *service(ServiceKey("198.51.100.1", "sctp", 5060), []),
        VirtualService(ServiceKey("198.51.100.2", "tcp", 80), "rr", ()),
        DestinationOrder(ServiceKey("198.51.100.2", "tcp", 80), ()),
    ]
    converge(driver, wanted)
    observed = driver.observe(wanted)
    assert set(observed.rows) == set(wanted)
    assert observed.foreign == ()


def test_ipvsadm_sees_the_same(driver: IpvsDriver) -> None:
    converge(driver, [*service(WEB, servers(2), {"192.0.2.2": 0}), *service(WEB6, ["2001:db8::a"])])
    assert ipvsadm("-Sn").splitlines() == [
        "-A -t 198.51.100.1:80 -s mh -b mh-fallback,mh-port",
        "-a -t 198.51.100.1:80 -r 192.0.2.1:80 -i -w 100 --tun-type ipip",
        "-a -t 198.51.100.1:80 -r 192.0.2.2:80 -i -w 0 --tun-type ipip",
        "-A -t [2001:db8:5::1]:443 -s mh -b mh-fallback,mh-port",
        "-a -t [2001:db8:5::1]:443 -r [2001:db8::a]:443 -i -w 100 --tun-type ipip",
    ]
    assert "192.0.2.2:80                 Tunnel  0" in ipvsadm("-Ln")


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"forwarding": "route"}, "-g -w 100"),
        ({"forwarding": "masquerade"}, "-m -w 100"),
        ({"tunnel": "gre"}, "-i -w 100 --tun-type gre --tun-nocsum"),
        ({"tunnel": "gre", "tunnel_checksum": "full"}, "-i -w 100 --tun-type gre --tun-csum"),
        ({"tunnel": "gue", "tunnel_port": 6080}, "-i -w 100 --tun-type gue --tun-port 6080 --tun-nocsum"),
        (
            {"tunnel": "gue", "tunnel_port": 7, "tunnel_checksum": "remote"},
            "-i -w 100 --tun-type gue --tun-port 7 --tun-remcsum",
        ),
    ],
)
def test_forwarding_is_set_and_mended(driver: IpvsDriver, settings: dict[str, object], seen: str) -> None:
    """Made so; changed to ours; and changed back: each way one `~` of the destination."""
    usual = [VirtualService(WEB), Destination(WEB, "192.0.2.1", 100, 100)]
    other = [VirtualService(WEB), replace(usual[1], **settings)]
    converge(driver, other)
    assert ipvsadm("-Sn").splitlines()[1].endswith(f"-r 192.0.2.1:80 {seen}")
    for wanted, words in ((usual, "-i -w 100 --tun-type ipip"), (other, seen)):
        assert [change.action for change in converge(driver, wanted).changes] == ["update"]
        assert ipvsadm("-Sn").splitlines()[1].endswith(f"-r 192.0.2.1:80 {words}")


def test_drift_is_mended(driver: IpvsDriver) -> None:
    wanted = service(WEB, servers(3))
    converge(driver, wanted)
    ipvsadm("-E", "-t", "198.51.100.1:80", "-s", "mh", "-p", "60")
    ipvsadm("-e", "-t", "198.51.100.1:80", "-r", "192.0.2.2:80", "-i", "-w", "5")
    ipvsadm("-a", "-t", "198.51.100.1:80", "-r", "192.0.2.77:80", "-i")
    assert str(converge(driver, wanted)).splitlines() == [
        f"~ virtual-service {WEB} flags persistent -> mh-fallback,mh-port persistence 60 s per /address -> none",
        "~ destination 198.51.100.1:80/tcp -> 192.0.2.2 weight 5 -> 100",
        "- destination 198.51.100.1:80/tcp -> 192.0.2.77",
        "impact 198.51.100.1:80/tcp: 67 % of new flows move, 31.4 % unavoidable",
    ]
    ipvsadm("-E", "-t", "198.51.100.1:80", "-s", "rr")
    converge(driver, wanted)
    assert ipvsadm("-Sn").splitlines()[0] == "-A -t 198.51.100.1:80 -s mh -b mh-fallback,mh-port"


def test_what_is_foreign_is_told_and_stays(driver: IpvsDriver) -> None:
    ipvsadm("-A", "-t", "198.51.100.9:80", "-s", "rr")
    ipvsadm("-a", "-t", "198.51.100.9:80", "-r", "192.0.2.8:80", "-m")
    ipvsadm("-a", "-t", "198.51.100.9:80", "-r", "192.0.2.9:80", "-m")
    ipvsadm("-A", "-u", "[2001:db8:5::9]:53", "-s", "wlc", "-p", "300")
    ipvsadm("-A", "-f", "7", "-s", "rr")
    ipvsadm("-A", "-f", "8", "-6", "-s", "rr")
    before = ipvsadm("-Sn").splitlines()
    converge(driver, service(WEB, servers(2)))
    assert sorted(plan(driver, service(WEB, servers(2))).foreign) == [
        "198.51.100.9:80/tcp (rr, 2 destinations)",
        "[2001:db8:5::9]:53/udp (wlc, 0 destinations)",
        "fwmark 0x7 ipv4 (rr, 0 destinations)",
        "fwmark 0x8 ipv6 (rr, 0 destinations)",
    ]
    converge(driver, [])
    assert sorted(ipvsadm("-Sn").splitlines()) == sorted(before)


def test_a_destination_on_another_port_is_told_and_stays(driver: IpvsDriver) -> None:
    ipvsadm("-A", "-t", "198.51.100.1:80", "-s", "mh")
    with GenericNetlink(codec.FAMILY) as link:
        other = codec.Destination("192.0.2.1", 8080)
        assert link.exchange([[codec.destination_request(Command.NEW_DEST, rows.record_of_key(WEB), other)]]) == [[0]]
    wanted = service(WEB, servers(2))
    assert plan(driver, wanted).foreign == ("198.51.100.1:80/tcp -> 192.0.2.1:8080 (not the service's port)",)
    converge(driver, wanted)
    assert "-r 192.0.2.1:8080 -i" in ipvsadm("-Sn")


def test_a_masquerading_destination_on_another_port_is_ours(driver: IpvsDriver) -> None:
    wanted = service(WEB, servers(2))
    converge(driver, wanted)
    ipvsadm("-a", "-t", "198.51.100.1:80", "-r", "192.0.2.1:8080", "-m")
    assert "- destination 198.51.100.1:80/tcp -> 192.0.2.1:8080" in str(converge(driver, wanted)).splitlines()
    assert ":8080" not in ipvsadm("-Sn")


def test_the_ledger_tells_what_is_ours(driver: IpvsDriver, tmp_path: Path) -> None:
    """A later run, that knows nothing else, takes away what left the cluster file, and only that."""
    ipvsadm("-A", "-t", "198.51.100.9:80", "-s", "rr")
    converge(driver, [*service(WEB, servers(2)), *service(WEB6, ["2001:db8::a"])])
    assert json.loads((tmp_path / "ipvs.json").read_text()) == [list(WEB), list(WEB6)]
    later = IpvsDriver(Paths(run=tmp_path))
    assert str(converge(later, service(WEB, servers(2)))).splitlines() == [
        "- destination [2001:db8:5::1]:443/tcp -> 2001:db8::a",
        "- virtual-service [2001:db8:5::1]:443/tcp",
        "  left alone: 198.51.100.9:80/tcp (rr, 0 destinations)",
    ]
    assert json.loads((tmp_path / "ipvs.json").read_text()) == [list(WEB)]
    strange = IpvsDriver(Paths(run=tmp_path / "elsewhere"))
    assert not plan(strange, [])
    assert len(plan(strange, []).foreign) == 2


def test_a_wanted_service_is_ours_whoever_made_it(driver: IpvsDriver, tmp_path: Path) -> None:
    ipvsadm("-A", "-t", "198.51.100.1:80", "-s", "mh", "-b", "mh-fallback,mh-port")
    assert [change.action for change in converge(driver, service(WEB, servers(1))).changes] == ["create"]
    assert json.loads((tmp_path / "ipvs.json").read_text()) == [list(WEB)]


@pytest.mark.parametrize("service_first", [False, True])
def test_deletes_succeed_in_either_order_and_twice(driver: IpvsDriver, service_first: bool) -> None:
    wanted = service(WEB, servers(3))
    converge(driver, wanted)
    deletes = list(plan(driver, []).changes)
    if service_first:
        deletes.reverse()
    assert errors(driver, deletes) == [""] * 4
    assert errors(driver, deletes) == [""] * 4
    assert ipvsadm("-Sn") == ""


def test_somebody_else_may_be_faster(driver: IpvsDriver) -> None:
    wanted = service(WEB, servers(2), {"192.0.2.2": 0})
    late = plan(driver, wanted)
    ipvsadm("-A", "-t", "198.51.100.1:80", "-s", "rr")
    ipvsadm("-a", "-t", "198.51.100.1:80", "-r", "192.0.2.1:80", "-g", "-w", "3")
    ipvsadm("-a", "-t", "198.51.100.1:80", "-r", "192.0.2.2:80", "-g", "-w", "3")
    assert errors(driver, late.changes) == ["", "", ""]
    assert not plan(driver, wanted)


def test_one_failure_stops_nothing_and_is_told_in_words(driver: IpvsDriver) -> None:
    nowhere = ServiceKey("198.51.100.7", "tcp", 80)
    web = service(WEB, servers(1))
    changes = [
        Change(None, VirtualService(nowhere, "no-such", ())),
        Change(None, web[0]),
        Change(None, Destination(nowhere, "192.0.2.1", 1)),
        Change(None, web[2]),
        Change(web[2], replace(web[2], address="192.0.2.5")),
        Change(None, replace(web[2], address="203.0.113.255", forwarding="route", tunnel="ipip", weight=2**31)),
    ]
    assert errors(driver, changes) == [
        "cannot add virtual service 198.51.100.7:80/tcp: no such scheduler (ENOENT)",
        "",
        "cannot add destination 198.51.100.7:80/tcp -> 192.0.2.1: no such virtual service (ESRCH)",
        "",
        "cannot change destination 198.51.100.1:80/tcp -> 192.0.2.5: no such destination (ENOENT)",
        "cannot add destination 198.51.100.1:80/tcp -> 203.0.113.255: Numerical result out of range (ERANGE)",
    ]
    assert not plan(driver, web)


def test_more_destinations_than_slots_never_reach_the_kernel(driver: IpvsDriver) -> None:
    converge(driver, service(WEB, servers(1)))
    many = [f"10.0.{number // 250}.{number % 250}" for number in range(4093)]
    changes = plan(driver, service(WEB, ["192.0.2.1", *many])).changes
    assert set(errors(driver, changes)) == {
        f"cannot add destination 198.51.100.1:80/tcp -> {address}: the service would have 4094 destinations, and a "
        "Maglev table has 4093 slots"
        for address in many
    }
    assert newest_first() == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("removed", "moved"),
    [(["192.0.2.3"], ["192.0.2.4", "192.0.2.5", "192.0.2.6"]), (["192.0.2.6"], []), (["192.0.2.1", "192.0.2.5"], None)],
)
def test_the_order_is_canonical_after_removal_by_hand(
    driver: IpvsDriver, removed: list[str], moved: list[str] | None
) -> None:
    wanted = service(WEB, servers(6), {"192.0.2.5": 0})
    converge(driver, wanted)
    assert newest_first() == servers(6)[::-1]
    for address in removed:
        ipvsadm("-d", "-t", "198.51.100.1:80", "-r", f"{address}:80")
    signs = [change.action for change in converge(driver, wanted).changes]
    assert signs == ["create"] * len(removed) + (["update"] if moved != [] else [])
    assert newest_first() == servers(6)[::-1]


def test_a_new_server_in_the_middle_and_one_that_leaves(driver: IpvsDriver) -> None:
    """Rows that leave are still there while the order is mended (deletes come last)."""
    converge(driver, service(WEB, servers(5)))
    canonical = ["192.0.2.2", "192.0.2.7", "192.0.2.1", "192.0.2.4"]
    converge(driver, service(WEB, canonical))
    assert newest_first() == canonical[::-1]


def test_an_order_waits_for_rows_that_cannot_be_made(driver: IpvsDriver) -> None:
    converge(driver, service(WEB, servers(3)))
    order = DestinationOrder(WEB, ("192.0.2.9", *servers(3)))
    assert errors(driver, [Change(None, order)]) == [
        "cannot add destination order 198.51.100.1:80/tcp: 192.0.2.9 is not there"
    ]
    assert newest_first() == servers(3)[::-1]


def test_a_server_that_is_down_keeps_its_slots(driver: IpvsDriver, routes: None) -> None:
    """The same flows for a table that never saw it down, one that was made while it was, and one where it came back.

    Neither VIP nor its port are hashed (ip_vs_mh.c), so the three services share one Maglev table.
    """
    never, during, back = (ServiceKey(f"198.51.100.{number}", "udp", 53) for number in (1, 2, 3))
    down = {"192.0.2.3": 0}
    converge(
        driver, [*service(never, servers(6)), *service(during, servers(6), down), *service(back, servers(6), down)]
    )
    converge(driver, [*service(never, servers(6)), *service(during, servers(6), down), *service(back, servers(6))])
    usual, without = flows(never), flows(during)
    assert usual.keys() == without.keys() == set(SOURCE_PORTS)
    assert set(usual.values()) == set(servers(6))
    assert "192.0.2.3" not in without.values()
    assert {port for port in SOURCE_PORTS if usual[port] != without[port]} == {
        port for port in SOURCE_PORTS if usual[port] == "192.0.2.3"
    }
    assert flows(back) == usual


def test_mending_an_order_moves_no_flow(driver: IpvsDriver, routes: None) -> None:
    """Flows that live stay where they are, also those of a server that has gone to 0 meanwhile; new ones find the table
    of an L4 node that was never touched."""
    untouched, mended, later = (ServiceKey(f"198.51.100.{number}", "udp", 53) for number in (1, 2, 3))
    canonical, wrong = servers(8), servers(8)[::-1]
    down = {"192.0.2.2": 0}
    converge(driver, [*service(mended, wrong), *service(later, wrong)])
    living = flows(mended)
    converge(driver, [*service(mended, wrong, down), *service(later, wrong, down)])
    wanted = [row for key in (untouched, mended, later) for row in service(key, canonical, down)]
    converge(driver, wanted)
    assert newest_first() == wrong * 3
    assert flows(mended) == living
    assert "192.0.2.2" in living.values()
    converge(driver, [*service(untouched, canonical), *service(mended, canonical), *service(later, canonical)])
    assert flows(later) == flows(untouched)


def test_errors_find_their_message_in_a_long_batch() -> None:
    """Over 60 kB, so more than one sendmsg; netlink numbers the errors, and what follows them is carried out."""
    record = rows.record_of_key(WEB)._replace(scheduler="rr")
    records = [codec.Destination(f"10.0.{number // 250}.{number % 250}", 80) for number in range(1000)]
    groups = [[codec.service_request(Command.NEW_SERVICE, record)]]
    groups += [[codec.destination_request(Command.NEW_DEST, record, item)] for item in records]
    groups[700] = [groups[1][0], groups[700][0]]
    groups[300] = []
    groups[999] = [codec.destination_request(Command.DEL_DEST, record, codec.Destination("192.0.2.1", 80))]
    with GenericNetlink(codec.FAMILY) as link:
        outcomes = link.exchange(groups)
        found = [codec.decode_destination(payload) for payload in link.dump(codec.destinations_query(record))]
    assert {index: codes for index, codes in enumerate(outcomes) if codes != [0]} == {
        300: [],
        700: [errno.EEXIST, 0],
        999: [errno.ENOENT],
    }
    assert found == [item for index, item in enumerate(records, 1) if index not in (300, 999)][::-1]


def test_everything_a_service_can_hold_comes_back() -> None:
    """Persistence, netmasks, marks, thresholds, tunnel ports: through the kernel, not only through the codec."""
    services = [
        codec.Service("198.51.100.1", 6, 80, "mh", flags=0x19, timeout=300, prefix=24),
        codec.Service("2001:db8:5::1", 17, 53, "wlc", flags=0x05, timeout=60, prefix=64, family=socket.AF_INET6),
        codec.Service("", 0, 0, "rr", fwmark=7),
        codec.Service("", 0, 0, "sh", flags=0x10, fwmark=0xFFFFFFFF, family=socket.AF_INET6),
    ]
    records = [
        codec.Destination("192.0.2.1", 80, codec.Forwarding.TUNNEL, 7, 1000, 800, codec.Tunnel.GUE, 6081, 1),
        codec.Destination("2001:db8::7", 8080, codec.Forwarding.TUNNEL, 0, tunnel=codec.Tunnel.GRE),
    ]
    with GenericNetlink(codec.FAMILY) as link:
        made = [[codec.service_request(Command.NEW_SERVICE, item)] for item in services]
        made.append([codec.destination_request(Command.NEW_DEST, services[0], item) for item in records])
        assert link.exchange(made) == [[0], [0], [0], [0], [0, 0]]
        found = {codec.decode_service(payload) for payload in link.dump(Request(Command.GET_SERVICE))}
        rows_found = [codec.decode_destination(payload) for payload in link.dump(codec.destinations_query(services[0]))]
    assert found == set(services)
    assert rows_found == records[::-1]


def test_a_user_without_rights_is_told_so() -> None:
    with GenericNetlink(codec.FAMILY) as link:
        os.seteuid(65534)
        try:
            with pytest.raises(NotPermitted, match="cannot use IPVS: the kernel asks for CAP_NET_ADMIN"):
                link.exchange([[codec.service_request(Command.DEL_SERVICE, rows.record_of_key(WEB))]])
            with pytest.raises(NotPermitted, match="cannot use IPVS: the kernel asks for CAP_NET_ADMIN"):
                link.dump(Request(Command.GET_SERVICE))
        finally:
            os.seteuid(0)
