"""Programming before anything is announced: the table is built once, and is the same as when it is built row by row."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from udpflows import SOURCE_PORTS, flows, lay_routes

from lbnode.impact import table_states
from lbnode.ipvs import codec, rows
from lbnode.ipvs.codec import Command
from lbnode.ipvs.driver import IpvsDriver
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.paths import Paths
from lbnode.plan import Change, diff
from lbnode.resources import Announcement, Destination, DestinationOrder, LocalRoute, Row, ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

WEB = ServiceKey("198.51.100.1", "tcp", 80)
MARK = ServiceKey.of_mark(7, 6)
ANNOUNCED = Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137")


@pytest.fixture
def driver(tmp_path: Path) -> IpvsDriver:
    return IpvsDriver(Paths(run=tmp_path))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every message that goes to the kernel: command, and scheduler or destination."""
    log: list[tuple[str, str]] = []
    exchange = GenericNetlink.exchange

    def listening(self: GenericNetlink, groups: Any) -> list[list[int]]:
        for command, payload in (request for group in groups for request in group):
            name = Command(command).name
            if name.endswith("_SERVICE"):
                log.append((name, "" if name == "DEL_SERVICE" else codec.decode_service(payload).scheduler))
            else:
                log.append((name, ""))
        return exchange(self, groups)

    monkeypatch.setattr(GenericNetlink, "exchange", listening)
    return log


def service(key: ServiceKey, names: Sequence[str], down: Sequence[str] = ()) -> list[Row]:
    made = [Destination(key, name, 0 if name in down else 100, 100, serial) for serial, name in enumerate(names)]
    return [VirtualService(key), *made, DestinationOrder(key, tuple(names))]


def servers(count: int) -> list[str]:
    return [f"192.0.2.{number}" for number in range(1, count + 1)]


def converge(driver: IpvsDriver, wanted: Sequence[Row], *others: Row) -> list[Change]:
    """`others` are rows of other drivers, there before and after."""
    plan = diff([*driver.observe(wanted).rows, *others], [*wanted, *others])
    assert [result.error for result in driver.apply(plan.changes) if result.error] == []
    left = driver.observe(wanted)
    assert set(left.rows) == set(wanted)
    assert all(state.equal for state in table_states(left.rows, wanted))
    return list(plan.changes)


@pytest.mark.parametrize("key", [WEB, MARK])
def test_a_new_service_gets_its_table_once(driver: IpvsDriver, sent: list[tuple[str, str]], key: ServiceKey) -> None:
    converge(driver, service(key, servers(40)[::-1], down=["192.0.2.3"]))
    assert sent[0] == ("NEW_SERVICE", "none")
    assert sent[-1] == ("SET_SERVICE", "mh")
    assert Counter(name for name, _ in sent) == {"NEW_SERVICE": 1, "NEW_DEST": 40, "SET_DEST": 1, "SET_SERVICE": 1}


def test_what_is_announced_keeps_its_scheduler(driver: IpvsDriver, sent: list[tuple[str, str]]) -> None:
    """A port more on a VIP that clients use."""
    converge(driver, service(WEB, servers(40)), ANNOUNCED)
    assert {scheduler for name, scheduler in sent if name.endswith("_SERVICE")} == {"mh"}
    sent.clear()
    converge(driver, service(WEB, servers(40)[::-1]), ANNOUNCED)
    assert Counter(name for name, _ in sent) == {"DEL_DEST": 39, "NEW_DEST": 39}


def test_services_and_destinations_may_come_apart(driver: IpvsDriver, sent: list[tuple[str, str]]) -> None:
    """A start during an outage: the local route of a failed server is made between the two, by another driver."""
    wanted = service(WEB, servers(40))
    plan = diff(driver.observe(wanted).rows, [*wanted, LocalRoute("192.0.2.1", "192.0.2.137")])
    first, rest = plan.changes[:1], plan.changes[2:]
    assert [result.error for result in (*driver.apply(first), *driver.apply(rest)) if result.error] == []
    assert [entry for entry in sent if entry[0].endswith("_SERVICE")] == [
        ("NEW_SERVICE", "mh"),
        ("DEL_SERVICE", ""),
        ("NEW_SERVICE", "none"),
        ("SET_SERVICE", "mh"),
    ]
    assert set(driver.observe(wanted).rows) == set(wanted)


def test_an_order_is_rebuilt_before_it_is_announced(driver: IpvsDriver, sent: list[tuple[str, str]]) -> None:
    """All of it, so that nothing of what went before is left in the table: not even that rows were added at 0."""
    lay_routes()
    mended, fresh = (ServiceKey(f"198.51.100.{number}", "udp", 53) for number in (1, 2))
    with GenericNetlink(codec.FAMILY) as link:
        record = rows.record_of_service(VirtualService(mended))
        link.exchange([[codec.service_request(Command.NEW_SERVICE, record)]])
        for address in servers(8)[::-1]:
            item = codec.Destination(address, 53, weight=0)
            link.exchange([[codec.destination_request(Command.NEW_DEST, record, item)]])
    sent.clear()
    down = ["192.0.2.2", "192.0.2.7"]
    changes = converge(driver, service(mended, servers(8), down))
    assert changes[-1].reason == "rebuilt before it is announced (live while it has flows)"
    order = sent[[name for name, _ in sent].index("SET_SERVICE") :]
    assert (order[0], order[-1]) == (("SET_SERVICE", "none"), ("SET_SERVICE", "mh"))
    assert Counter(name for name, _ in order[1:-1]) == {"DEL_DEST": 8, "NEW_DEST": 8, "SET_DEST": 2}
    for target in (down, []):
        both = [*service(mended, servers(8), target), *service(fresh, servers(8), target)]
        converge(driver, both)
        assert len(flows(fresh)) == len(SOURCE_PORTS)
        assert flows(mended) == flows(fresh)
        converge(driver, [])


def test_all_of_it_gives_the_same_flows_as_row_by_row(driver: IpvsDriver) -> None:
    lay_routes()
    cold, live = (ServiceKey(f"198.51.100.{number}", "udp", 53) for number in (1, 2))
    announced = replace(ANNOUNCED, prefix="198.51.100.2/32")
    converge(driver, [*service(cold, servers(9), ["192.0.2.4"]), *service(live, servers(9), ["192.0.2.4"])], announced)
    assert flows(cold) == flows(live)
    assert set(flows(cold).values()) == set(servers(9)) - {"192.0.2.4"}


def test_somebody_else_may_be_faster(driver: IpvsDriver) -> None:
    wanted = service(WEB, servers(5))
    changes = [Change(None, row, quiet=True) for row in wanted[:-1]]
    subprocess.run(["ipvsadm", "-A", "-t", "198.51.100.1:80", "-s", "rr"], check=True)
    assert [result.error for result in driver.apply(changes)] == [""] * 6
    assert set(driver.observe(wanted).rows) == set(wanted)


def test_a_table_that_would_be_too_large_never_gets_mh(driver: IpvsDriver) -> None:
    """Any other scheduler takes as many as there are."""
    many = [f"10.0.{number // 250}.{number % 250}" for number in range(4094)]
    wanted = [
        replace(row, scheduler="rr", flags=()) if isinstance(row, VirtualService) else row for row in service(WEB, many)
    ]
    converge(driver, wanted)
    change = Change(wanted[0], VirtualService(WEB), quiet=True)
    why = "the service would have 4094 destinations, and a Maglev table has 4093 slots"
    assert [result.error for result in driver.apply([change])] == [
        f"cannot change virtual service 198.51.100.1:80/tcp: {why}"
    ]
    assert set(driver.observe(wanted).rows) == set(wanted)


def test_a_service_left_without_a_scheduler_is_mended(driver: IpvsDriver) -> None:
    """As when a run ended in between."""
    wanted = service(WEB, servers(5))
    converge(driver, wanted)
    subprocess.run(["ipvsadm", "-E", "-t", "198.51.100.1:80", "-s", "none"], check=True)
    assert [str(change) for change in converge(driver, wanted)] == [
        "~ virtual-service 198.51.100.1:80/tcp scheduler none -> mh flags none -> mh-fallback,mh-port"
    ]
