"""Destinations that nobody wants any more: what is told of them, and how they go."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from udpflows import SOURCE_PORTS, entries, flows, lay_routes

from lbnode.ipvs import removal
from lbnode.ipvs.driver import IpvsDriver
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.paths import Paths
from lbnode.plan import Change, diff
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

DNS = ServiceKey("198.51.100.1", "udp", 53)
OTHER = ServiceKey("198.51.100.2", "udp", 53)
SETTING = Path("/proc/sys/net/ipv4/vs/expire_nodest_conn")


@pytest.fixture
def driver(tmp_path: Path) -> IpvsDriver:
    return IpvsDriver(Paths(run=tmp_path))


def service(key: ServiceKey, names: Sequence[str], down: Sequence[str] = ()) -> list[Row]:
    made = [Destination(key, name, 0 if name in down else 100, 100, serial) for serial, name in enumerate(names)]
    return [VirtualService(key), *made, DestinationOrder(key, tuple(names))]


def servers(count: int) -> list[str]:
    return [f"192.0.2.{number}" for number in range(1, count + 1)]


def converge(driver: IpvsDriver, wanted: Sequence[Row]) -> list[Change]:
    plan = diff(driver.observe(wanted).rows, wanted)
    assert [result.error for result in driver.apply(plan.changes) if result.error] == []
    assert set(driver.observe(wanted).rows) == set(wanted)
    return list(plan.changes)


def test_what_is_unwanted_and_busy_is_told(driver: IpvsDriver, tmp_path: Path) -> None:
    """With how many connections and since when, whoever looks; and no longer when it is wanted again."""
    lay_routes()
    converge(driver, service(DNS, servers(4)))
    where = list(flows(DNS).values())
    fewer = service(DNS, servers(2))
    before = driver.observe(fewer).busy
    assert {key[-2]: busy.connections for key, busy in before.items()} == {
        address: where.count(address) for address in servers(4)[2:]
    }
    later = IpvsDriver(Paths(run=tmp_path)).observe(fewer).busy
    assert all(0 <= before[key].unwanted_s <= later[key].unwanted_s < 60 for key in before)
    assert any(later[key].unwanted_s > before[key].unwanted_s for key in before)
    assert driver.observe([VirtualService(OTHER)]).busy == {}
    assert driver.observe(fewer).busy[next(iter(later))].unwanted_s >= later[next(iter(later))].unwanted_s
    assert driver.observe(service(DNS, servers(4))).busy == {}
    assert json.loads((tmp_path / "ipvs-unwanted.json").read_text()) == []


def test_without_connections_nothing_is_busy(driver: IpvsDriver) -> None:
    converge(driver, service(DNS, servers(4)))
    assert driver.observe(service(DNS, [])).busy == {}


def test_a_destination_goes_with_its_connections_and_no_other(driver: IpvsDriver) -> None:
    """Also where it stands under another service with as many."""
    lay_routes()
    converge(driver, [*service(DNS, servers(4)), *service(OTHER, servers(4))])
    before, beside = flows(DNS), flows(OTHER)
    assert SETTING.read_text() == "0\n"
    converge(driver, [*service(DNS, servers(3)), *service(OTHER, servers(4))])
    assert SETTING.read_text() == "0\n"
    assert entries(DNS) == {port: address for port, address in before.items() if address != "192.0.2.4"}
    assert entries(OTHER) == beside
    assert set(flows(DNS)) == set(SOURCE_PORTS)


def test_a_service_goes_with_its_connections(driver: IpvsDriver) -> None:
    lay_routes()
    converge(driver, [*service(DNS, servers(4)), *service(OTHER, servers(4))])
    flows(DNS)
    beside = flows(OTHER)
    converge(driver, service(OTHER, servers(4)))
    assert entries(DNS) == {}
    assert entries(OTHER) == beside


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written to the setting, and when rows are changed."""
    log: list[str] = []
    write, exchange = removal._set, GenericNetlink.exchange

    def writing(value: str) -> None:
        log.append(f"set {value}")
        write(value)

    def changing(self: GenericNetlink, groups: Any) -> list[list[int]]:
        log.extend(f"{request.command}" for group in groups for request in group)
        return exchange(self, groups)

    monkeypatch.setattr(removal, "_set", writing)
    monkeypatch.setattr(GenericNetlink, "exchange", changing)
    return log


def test_nothing_else_is_changed_meanwhile(driver: IpvsDriver, settings: list[str]) -> None:
    lay_routes()
    converge(driver, service(DNS, servers(4)))
    flows(DNS)
    settings.clear()
    converge(driver, [*service(DNS, ["192.0.2.2", "192.0.2.1", "192.0.2.9"]), *service(OTHER, servers(1))])
    window = settings[settings.index("set 1") : settings.index("set 0") + 1]
    assert window == ["set 1", "7", "7", "set 0"]
    assert settings[-1] == "set 0"


def test_one_that_is_drained_and_idle_goes_without_more_ado(driver: IpvsDriver, settings: list[str]) -> None:
    lay_routes()
    converge(driver, service(DNS, servers(4), ["192.0.2.4"]))
    flows(DNS)
    converge(driver, service(DNS, servers(3)))
    assert not [entry for entry in settings if entry.startswith("set")]


def test_the_setting_is_back_when_something_fails(driver: IpvsDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_routes()
    converge(driver, service(DNS, servers(2)))
    flows(DNS)
    plan = diff(driver.observe(service(DNS, servers(1))).rows, service(DNS, servers(1)))

    def broken(self: GenericNetlink, groups: Any) -> list[list[int]]:
        assert SETTING.read_text() == "1\n"
        raise removal.LbnodeError("cannot read IPVS: no answer in 10 s")

    with monkeypatch.context() as patch:
        patch.setattr(GenericNetlink, "exchange", broken)
        errors = [result.error for result in driver.apply(plan.changes)]
    assert errors == [f"cannot delete destination {DNS} -> 192.0.2.2: cannot read IPVS: no answer in 10 s"]
    assert SETTING.read_text() == "0\n"
    converge(driver, service(DNS, servers(1)))


def test_a_damaged_ledger_stops_nothing(driver: IpvsDriver, tmp_path: Path) -> None:
    """What is wanted is ours; what only the ledger knew is left alone, and told of."""
    converge(driver, [*service(DNS, servers(2)), *service(OTHER, servers(2))])
    (tmp_path / "ipvs.json").write_text('[["198.51')
    wanted = service(DNS, servers(3))
    later = IpvsDriver(Paths(run=tmp_path))
    converge(later, wanted)
    for again in (later, IpvsDriver(Paths(run=tmp_path))):
        seen = again.observe(wanted)
        assert set(seen.rows) == set(wanted)
        assert "198.51.100.2:53/udp (mh, 2 destinations)" in seen.foreign
        assert [line for line in seen.foreign if line.startswith(f"ledger {tmp_path / 'ipvs.json.damaged'}: damaged")]
    assert json.loads((tmp_path / "ipvs.json").read_text()) == [list(DNS)]
