"""What `lbnode render ipvsadm` prints, given to the real `ipvsadm --restore`: the table that the driver would make."""

import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cluster
import pytest

from lbnode.cli import run
from lbnode.ipvs import ipvsadm
from lbnode.ipvs.driver import IpvsDriver
from lbnode.maintenance.state import READY
from lbnode.node import Identity, desired_state, load_cluster
from lbnode.paths import Paths
from lbnode.plan import TABLE_ROWS, diff
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def restore(text: str) -> None:
    subprocess.run(["ipvsadm", "--restore"], input=text, check=True, text=True)


def saved() -> list[str]:
    return subprocess.run(["ipvsadm", "-Sn"], check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_rendered_table_is_the_desired_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the canonical order is not that of the addresses, and the weights differ."""
    text = cluster.TEXT.replace("ipv4: 192.0.2.193", "weight: 70, ipv4: 192.0.2.199")
    (tmp_path / "cluster.yaml").write_text(text)
    paths = Paths(etc=tmp_path, run=tmp_path / "run")
    assert run(["render", "ipvsadm", "--node", "l4-1", "--etc-dir", str(tmp_path), "--run-dir", str(paths.run)]) == 0
    printed = capsys.readouterr().out
    restore(printed)
    identity = Identity("l4-1", "l4", paths)
    desired = desired_state(identity, load_cluster(identity), READY, {}).rows
    wanted = [row for row in desired if isinstance(row, TABLE_ROWS) and not row.service.carries_probes]
    observed = IpvsDriver(paths).observe(wanted)
    assert set(observed.rows) == set(wanted)
    assert {row.names for row in observed.rows if isinstance(row, DestinationOrder)} >= {("192.0.2.199", "192.0.2.194")}
    assert observed.foreign == ()
    assert not diff(observed.rows, wanted)
    assert sorted(saved()) == sorted(printed.splitlines())


MARK, MARK6 = ServiceKey.of_mark(7, 4), ServiceKey.of_mark(7, 6)
WEB, WEB6 = ServiceKey("198.51.100.1", "tcp", 80), ServiceKey("2001:db8:5::1", "tcp", 443)
DNS, DNS6 = ServiceKey("198.51.100.1", "udp", 53), ServiceKey("2001:db8:5::1", "udp", 53)
SIP, SIP6 = ServiceKey("198.51.100.1", "sctp", 5060), ServiceKey("2001:db8:5::1", "sctp", 5060)
ALL = [WEB, WEB6, DNS, DNS6, SIP, SIP6, MARK, MARK6]

# All of net/netfilter/ipvs/Kconfig but mh and twos, which not every kernel has.
SCHEDULERS = ["sh", "dh", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sed", "nq", "fo", "ovf"]


def table(service: VirtualService, *destinations: Destination) -> list[Row]:
    return [service, *destinations, DestinationOrder(service.service, tuple(row.name for row in destinations))]


def rows(key: ServiceKey, **settings: object) -> list[Destination]:
    """One of each family where the packets are tunnelled, else of the service's own."""
    addresses = ["192.0.2.9", "2001:db8::9"]
    if settings.get("forwarding"):
        addresses = [address for address in addresses if (":" in address) == (":" in key.vip)]
    return [
        Destination(key, address, 10, 10, serial, **settings)  # type: ignore[arg-type]
        for serial, address in enumerate(addresses, start=1)
    ]


def every_service() -> list[list[Row]]:
    """Persistence with a part of the client's address is both in one, for every protocol, family and scheduler."""
    sticky = [
        table(VirtualService(key, flags=("mh-port", "persistent"), timeout_s=300, prefix=64 if ":" in key.vip else 24))
        for key in ALL
    ]
    whole = [table(VirtualService(key, "wlc", ("persistent",), 3600)) for key in ALL]
    one = [table(VirtualService(key, "rr", ("one-packet",))) for key in (DNS, DNS6, MARK, MARK6)]
    plain = [table(VirtualService(WEB, scheduler, ()), *rows(WEB)) for scheduler in SCHEDULERS]
    flags = [("mh", "mh-fallback"), ("mh", "mh-port"), ("sh", "sh-fallback"), ("sh", "sh-port"), ("rr", "flag-1")]
    both = table(VirtualService(WEB, "sh", ("sh-fallback", "sh-port")))
    return [*sticky, *whole, *one, *plain, both, *(table(VirtualService(WEB6, name, (flag,))) for name, flag in flags)]


def every_destination() -> list[list[Row]]:
    settings: list[dict[str, object]] = [
        {},
        {"forwarding": "route"},
        {"upper": 1000},
        {"upper": 1000, "lower": 800},
        {"tunnel": "gre"},
        {"tunnel": "gre", "tunnel_checksum": "full"},
        {"tunnel": "gue", "tunnel_port": 6080},
        {"tunnel": "gue", "tunnel_port": 65535, "tunnel_checksum": "full"},
        {"tunnel": "gue", "tunnel_port": 1, "tunnel_checksum": "remote"},
    ]
    tunnels = [table(VirtualService(key), *rows(key, **setting)) for setting in settings for key in (WEB, WEB6, MARK)]
    four = [Destination(key, "192.0.2.9", 10, 10, 1, "masquerade") for key in (WEB, DNS, SIP, MARK)]
    six = [Destination(key, "2001:db8::9", 10, 10, 1, "masquerade") for key in (WEB6, DNS6, SIP6, MARK6)]
    masquerading = [
        table(VirtualService(row.service), row, replace(row, port=8080, serial=2), replace(row, port=81, serial=3))
        for row in four + six
    ]
    down = [Destination(key, "192.0.2.9", 0, 70, 1, upper=5) for key in (WEB, MARK)]
    return [*tunnels, *masquerading, *(table(VirtualService(row.service), row) for row in down)]


def apart(cases: list[list[Row]]) -> list[Row]:
    """Each case on a port or mark of its own, so that one table holds them all."""
    found: list[Row] = []
    for number, case in enumerate(cases):
        for row in case:
            assert isinstance(row, TABLE_ROWS)
            # ipvsadm prints marks from 2 ** 31 on as negative numbers, and does not read them back.
            found.append(replace(row, service=row.service._replace(port=9000 + number)))
    return sorted(found, key=lambda row: (row.service, row.rank, row.place))  # type: ignore[attr-defined]


def test_what_rows_say_is_what_ipvsadm_says(tmp_path: Path) -> None:
    """Made by the driver and read by ipvsadm, made by ipvsadm and read by the driver, in the same words and order."""
    wanted = apart([*every_service(), *every_destination()])
    assert len([row for row in wanted if isinstance(row, VirtualService)]) > 70
    driver = IpvsDriver(Paths(run=tmp_path))
    plan = diff(driver.observe(wanted).rows, wanted)
    assert [result.error for result in driver.apply(plan.changes) if result.error] == []
    assert in_order(driver.observe(wanted).rows) == wanted
    printed = ipvsadm.restore(wanted)
    assert sorted(saved()) == sorted(as_saved(printed))
    subprocess.run(["ipvsadm", "-C"], check=True)
    restore(printed)
    seen = driver.observe(wanted)
    assert (in_order(seen.rows), seen.foreign) == (wanted, ())


def in_order(found: Iterable[Row]) -> list[Row]:
    """By service; its destinations stay in their order."""
    return sorted(found, key=lambda row: (row.service, row.rank))  # type: ignore[attr-defined]


def as_saved(printed: str) -> list[str]:
    """`ipvsadm -Sn` knows nothing of thresholds, nor of the weight that a row at 0 was added with."""
    lines = re.sub(r" -x \d+ -y \d+", "", printed).splitlines()
    edited = {line.split(" -w ")[0].replace("-e ", "-a ", 1) for line in lines if line.startswith("-e ")}
    return [
        re.sub(r" -w \d+", " -w 0", line) if line.split(" -w ")[0] in edited else line
        for line in lines
        if line[:2] != "-e"
    ]


def test_a_service_by_mark_is_ours_when_it_is_wanted_or_was(tmp_path: Path) -> None:
    """And another by mark is not, nor is the same mark in the other family."""
    subprocess.run(["ipvsadm", "-A", "-f", "7", "-6", "-s", "rr"], check=True)
    wanted = table(VirtualService(MARK, flags=("mh-port", "persistent"), timeout_s=60), *rows(MARK))
    driver = IpvsDriver(Paths(run=tmp_path))
    for target in (wanted, []):
        plan = diff(driver.observe(target).rows, target)
        assert [result.error for result in driver.apply(plan.changes)] == [""] * 3
        observed = driver.observe(target)
        assert observed.rows == tuple(target)
        assert observed.foreign == ("fwmark 0x7 ipv6 (rr, 0 destinations)",)
    assert saved() == ["-A -f 7 -6 -s rr"]


def test_persistence_that_went_by_hand_comes_back(tmp_path: Path) -> None:
    wanted = table(VirtualService(WEB, "mh", ("mh-fallback", "mh-port", "persistent"), 300, 24), *rows(WEB))
    driver = IpvsDriver(Paths(run=tmp_path))
    driver.apply(diff([], wanted).changes)
    for words in (["-s", "mh"], ["-s", "mh", "-p", "20"], ["-s", "mh", "-p", "300", "-M", "255.0.0.0"]):
        subprocess.run(["ipvsadm", "-E", "-t", "198.51.100.1:80", *words], check=True)
        plan = diff(driver.observe(wanted).rows, wanted)
        assert [change.action for change in plan.changes] == ["update"]
        assert [result.error for result in driver.apply(plan.changes)] == [""]
        assert driver.observe(wanted).rows == tuple(wanted)
