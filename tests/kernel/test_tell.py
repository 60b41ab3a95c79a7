"""What agents tell other machines, over a real network: metrics, and the tables that `lbnode explain --live` compares.

Two L4 nodes share this kernel, so their tables are one; the agent of l4-2 is asked by the network, l4-1 by netlink.
"""

import json
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest
from test_explain import CLIENT, CLUSTER, WEB, connect, converge, driver, etc, ipvsadm

from lbnode.agent import control
from lbnode.cli import run
from lbnode.ipvs import counters
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths

__all__ = ["driver", "etc"]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

FLOW = [f"{CLIENT}:20000", "198.51.100.1:80", "--live"]


@pytest.fixture
def two(etc: list[str]):
    """The cluster with a second L4 node, whose agent runs here; options of the first."""
    subprocess.run(["ip", "address", "add", "192.0.2.142/24", "dev", "wire"], check=True)
    folder = Path(etc[1])
    more = CLUSTER.replace(
        "  l7-1:", "  l4-2: {role: l4, ipv4: 192.0.2.142}\n  l4-3: {role: l4, ipv4: 192.0.2.143}\n  l7-1:"
    )
    (folder / "cluster.yaml").write_text(more)
    options = ["--etc-dir", str(folder), "--run-dir", str(folder / "run2"), "--node", "l4-2"]
    with (folder / "agent.log").open("w") as log:
        agent = subprocess.Popen([sys.executable, "-m", "lbnode", "agent", *options], stderr=log)
    paths = Paths(folder, folder / "run2")
    try:
        wait_until(lambda: (control.ask(paths, "status") or {}).get("tables"), 60, "the agent's first pass")
        yield etc
    finally:
        agent.terminate()
        agent.wait(30)


def get(path: str, source: str = "192.0.2.141") -> str:
    asked = HTTPConnection("192.0.2.142", 9478, timeout=10, source_address=(source, 0))
    asked.request("GET", path)
    return asked.getresponse().read().decode()


def test_every_l4_node_is_asked(two, capsys):
    """Nothing answers the probes, so the agent has set all weights to 0: neither node is as the file says."""
    assert run(["explain", *FLOW, *two]) == 0
    lines = capsys.readouterr().out.splitlines()
    own, other = ([line for line in lines if line.startswith(f"{name}: ")] for name in ("l4-1", "l4-2"))
    assert own[0].startswith("l4-1: nowhere, dropped, slot ")
    assert other[0] == own[0].replace("l4-1", "l4-2", 1) + "; the VIP is withdrawn there"
    assert [line for line in lines if line.startswith("l4-3: no answer: 192.0.2.143: ")]
    assert run(["explain", *FLOW, "--json", *two]) == 0
    live = json.loads(capsys.readouterr().out)["live"]
    assert live["l4-1"]["table"] == live["l4-2"]["table"]
    assert live["l4-2"]["differences"] == [f"192.0.2.15{n} has weight 0, not 100" for n in (1, 2, 3)]
    assert list(live["l4-3"]) == ["error"]


def test_the_page_of_tables_is_the_kernels_now(two):
    """Whoever made it: a service of others is one where a flow may go as well."""
    ipvsadm("-A", "-t", "203.0.113.80:80", "-s", "mh")
    ipvsadm("-a", "-t", "203.0.113.80:80", "-r", "192.0.2.99:8080", "-m", "-w", "7")
    ipvsadm("-A", "-f", "5", "-s", "rr")
    found = json.loads(get("/tables"))
    assert found["node"] == "l4-2"
    assert found["announced"] == []
    rows = {key: table["rows"] for key, table in found["tables"].items()}
    assert rows.keys() == {"198.51.100.1:80/tcp", "203.0.113.80:80/tcp", "fwmark 0x5 ipv4"}  # no probes' own
    assert rows["203.0.113.80:80/tcp"] == [{"address": "192.0.2.99", "port": 8080, "weight": 7, "table_weight": 7}]
    assert [row["table_weight"] for row in rows["198.51.100.1:80/tcp"]] == [100, 100, 100]
    assert len(found["tables"]["198.51.100.1:80/tcp"]["fingerprint"]) == 12
    assert found["tables"]["fwmark 0x5 ipv4"]["fingerprint"] == ""
    assert list(json.loads(get("/tables?service=198.51.100.1:80/tcp"))["tables"]) == ["198.51.100.1:80/tcp"]


def test_metrics_are_told_to_nodes_and_to_no_stranger(two):
    lines = get("/metrics").splitlines()
    assert 'lbnode_table_right{service="198.51.100.1:80/tcp"} 1.0' in lines
    assert 'lbnode_server_weight{address="192.0.2.151",server="l7-1"} 0.0' in lines
    assert any(line.startswith('lbnode_table_info{fingerprint="') for line in lines)
    with pytest.raises(ConnectionError):
        get("/metrics", source=CLIENT)
    with pytest.raises(ConnectionRefusedError):  # a VIP is none of the node's own addresses
        socket.create_connection(("198.51.100.1", 9478), timeout=5)


def test_counters_are_those_of_ipvs(etc, driver):
    converge(driver)
    for port in range(20000, 20010):
        connect(port)
    # The kernel adds the processors' counts up every 2 seconds (ip_vs_est.c).
    wait_until(lambda: counters.read()[WEB].flows == 10, 20, "IPVS to have counted")
    found = counters.read()[WEB]
    told = subprocess.run(["ipvsadm", "-Ln", "--stats", "--exact"], capture_output=True, text=True, check=True).stdout
    line = next(line.split() for line in told.splitlines() if line.startswith("TCP  198.51.100.1:80"))
    assert [int(word) for word in line[2:4]] == [found.flows, found.packets]
    assert found.bytes == int(line[5])
