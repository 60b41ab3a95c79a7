"""`lbnode explain --live` and the fingerprints of `lbnode status`, against what the kernel has and does."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.agent import control
from lbnode.cli import run
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths
from lbnode.plan import Plan, diff
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

CLUSTER = """
bgp: {local_asn: 65001, peers: {r1: {address: 192.0.2.129, asn: 65000}}}
nodes:
  l4-1: {role: l4, ipv4: 192.0.2.141}
  l7-1: {role: l7, ipv4: 192.0.2.151}
  l7-2: {role: l7, ipv4: 192.0.2.152}
  l7-3: {role: l7, ipv4: 192.0.2.153}
  s1: {role: backend, ipv4: 192.0.2.171}
services:
  www: {vips: [198.51.100.1], pool: web}
pools:
  web: {}
"""
WEB = ServiceKey("198.51.100.1", "tcp", 80)
CLIENT = "203.0.113.1"
REAL_SERVERS = ("192.0.2.151", "192.0.2.152", "192.0.2.153")
WANTED: list[Row] = [
    VirtualService(WEB),
    *(Destination(WEB, address, 100, 100, serial) for serial, address in enumerate(REAL_SERVERS, start=1)),
    DestinationOrder(WEB, REAL_SERVERS),
]


@pytest.fixture
def etc(tmp_path: Path) -> list[str]:
    for command in (
        ["address", "add", f"{CLIENT}/32", "dev", "lo"],
        ["address", "add", f"{WEB.vip}/32", "dev", "lo"],
        ["link", "add", "wire", "type", "dummy"],
        ["link", "set", "wire", "up"],
        ["address", "add", "192.0.2.141/24", "dev", "wire"],
    ):
        subprocess.run(["ip", *command], check=True)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return ["--etc-dir", str(tmp_path), "--run-dir", str(tmp_path / "run"), "--node", "l4-1"]


@pytest.fixture
def driver(tmp_path: Path) -> IpvsDriver:
    return IpvsDriver(Paths(run=tmp_path / "run"))


def plan(driver: IpvsDriver) -> Plan:
    observed = driver.observe(WANTED)
    return diff(observed.rows, WANTED, foreign=observed.foreign)


def converge(driver: IpvsDriver) -> None:
    assert not [result.error for result in driver.apply(plan(driver).changes) if result.error]
    assert not plan(driver)


def ipvsadm(*argv: str) -> str:
    return subprocess.run(("ipvsadm", *argv), check=True, stdout=subprocess.PIPE, text=True).stdout


def connect(port: int) -> None:
    with socket.socket() as client:
        client.setblocking(False)
        client.bind((CLIENT, port))
        client.connect_ex((WEB.vip, WEB.port))


def test_the_entries_are_where_the_explanation_says(etc, driver, capsys):
    converge(driver)
    for port in range(20000, 20020):
        connect(port)
        assert run(["explain", f"{CLIENT}:{port}", "198.51.100.1:80", "--live", "--json", *etc]) == 0
        found = json.loads(capsys.readouterr().out)
        live = found["live"]["l4-1"]
        assert live["entry"]["server"] == live["server"] == found["file"]["server"]
        assert live["table"] == found["file"]["table"]
        assert live["differences"] == []


def test_a_drained_server_is_told_and_keeps_the_flow_it_has(etc, driver, capsys):
    converge(driver)
    connect(20000)
    assert run(["explain", f"{CLIENT}:20000", "198.51.100.1:80", "--live", *etc]) == 0
    holder = capsys.readouterr().out.split("by the file: ")[1].split(" ")[0]
    address = f"192.0.2.15{holder[-1]}"
    ipvsadm("-e", "-t", "198.51.100.1:80", "-r", f"{address}:80", "-i", "-w", "0")
    assert run(["explain", f"{CLIENT}:20000", "198.51.100.1:80", "--live", *etc]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"l4-1: {holder} ({address}), by its entry, SYN_")
    assert lines[3].startswith("l4-1, a new flow: l7-")
    assert lines[3].endswith(f": by fallback, for {holder} ({address}) is at weight 0; not as the file")
    assert lines[4:] == [f"l4-1 differs: {address} has weight 0, not 100"]
    state = plan(driver).tables_as_json()["198.51.100.1:80/tcp"]
    assert state["fingerprint"] != state["wanted"]
    converge(driver)
    assert plan(driver).tables_as_json()["198.51.100.1:80/tcp"]["equal"]


def test_the_table_counts_what_others_put_into_it(etc, driver, capsys):
    """A destination on another port is no row of ours, and takes its share all the same."""
    converge(driver)
    ipvsadm("-a", "-t", "198.51.100.1:80", "-r", "192.0.2.99:8080", "-m", "-w", "100")
    ports = range(21000, 21040)
    for port in ports:
        connect(port)
    servers = set()
    for port in ports:
        assert run(["explain", f"{CLIENT}:{port}", "198.51.100.1:80", "--live", "--json", *etc]) == 0
        live = json.loads(capsys.readouterr().out)["live"]["l4-1"]
        assert live["entry"]["server"] == live["server"]
        servers.add(live["server"]["address"])
    assert servers == {*REAL_SERVERS, "192.0.2.99"}
    assert live["differences"] == ["192.0.2.99:8080 does not belong there"]
    assert not plan(driver).tables_as_json()["198.51.100.1:80/tcp"]["equal"]


def test_a_service_that_is_not_there_or_has_no_table(etc, driver, capsys):
    flow = [f"{CLIENT}:20000", "198.51.100.1:80", "--live", *etc]
    assert run(["explain", *flow]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["l4-1: there is no such virtual service"]
    ipvsadm("-A", "-t", "198.51.100.1:80", "-s", "rr")
    assert run(["explain", *flow]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "l4-1: scheduler rr decides, not a Maglev table"
    assert lines[3] == "l4-1 differs: scheduler rr, not mh"


def test_status_has_the_fingerprints(etc, driver, capsys):
    """Without an agent: from the live system."""
    converge(driver)
    ipvsadm("-e", "-t", "198.51.100.1:80", "-r", "192.0.2.151:80", "-i", "-w", "50")
    assert run(["status", *etc]) == 1
    table = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("table"))
    have, _, should = table.partition("  # should be ")
    assert have.startswith("table 198.51.100.1:80/tcp: ")
    assert len(should) == 12
    assert run(["status", "--json", *etc]) == 1
    found = json.loads(capsys.readouterr().out)["tables"]["198.51.100.1:80/tcp"]
    assert found == {"fingerprint": have.split(": ")[1], "wanted": should, "equal": False}


def test_the_agent_tells_the_table_it_has_made(etc, driver):
    """Nothing answers the probes: every server is at weight 0, and the table is the wanted one all the same."""
    options = ["--etc-dir", etc[1], "--run-dir", etc[3], "--node", "l4-1"]
    paths = Paths(Path(etc[1]), Path(etc[3]))
    with (Path(etc[1]) / "agent.log").open("w") as log:
        agent = subprocess.Popen([sys.executable, "-m", "lbnode", "agent", *options], stderr=log)
    try:

        def tables() -> dict[str, dict[str, str]]:
            return (control.ask(paths, "status") or {}).get("tables", {})

        found = wait_until(tables, 60, "the agent's first pass")
        assert list(found) == ["198.51.100.1:80/tcp"]
        assert found["198.51.100.1:80/tcp"]["equal"]

        def mended() -> int:
            """By a pass that only the timer began: one about a server's health mends it too, and calls it no drift."""
            repairs = control.ask(paths, "status")["counts"]["drift_repairs"]
            if not repairs and "192.0.2.99" not in ipvsadm("-Sn"):
                ipvsadm("-a", "-t", "198.51.100.1:80", "-r", "192.0.2.99:8080", "-m", "-w", "100")
            return repairs

        wait_until(mended, 60, "the agent to mend it")
        assert tables()["198.51.100.1:80/tcp"] == found["198.51.100.1:80/tcp"]
    finally:
        agent.terminate()
        agent.wait(30)
