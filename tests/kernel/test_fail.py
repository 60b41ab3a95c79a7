"""A real server fails under traffic: its flows end by a RST from the VIP, no others do, and it comes back."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from direct_site import Site, built, cluster, title
from echo import DEADLINE_S, answers, but, of

from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel

SERVERS = ("s1", "s2", "s3")
CLUSTER = cluster(dict.fromkeys(SERVERS, ""))
FLOWS = 60


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with built(CLUSTER, CLUSTER, tmp_path) as found:
        yield found


@pytest.mark.parametrize("version", [4, 6])
def test_the_flows_of_a_silent_server_end_and_no_others(site: Site, version: int) -> None:
    flows = site.open(version, FLOWS)
    assert {flow.server for flow in flows} == set(SERVERS)
    dead, others = of(flows, "s1"), but(flows, "s1")
    waiting, idle, active = dead[0], dead[1:3], dead[3:]
    site.cable("s1", up=False)
    assert waiting.says(patience_s=0.5) == "nothing"

    done = site.probe_and_pass()
    host = site.address("s1", version)
    route = f"+ local-route {host} source {site.address('l4-1', version)}"
    weight = f"~ destination {title(host, version)}"
    assert done.index(route) < done.index(f"{weight} weight 100 -> 0")
    assert answers(active) == {"reset": len(active)}
    wait_until(lambda: waiting.says() == "reset", DEADLINE_S, "the next retransmission of a flow that has waited")
    assert answers(others) == {"own": len(others)}
    assert {flow.server for flow in site.open(version, 30)} == {"s2", "s3"}
    assert answers(idle) == {"reset": 2}

    # What is not a probe meets the L4 node itself: without the mark the server would never be seen to come back.
    def unmarked() -> None:
        socket.create_connection((host, 80), timeout=1).close()

    assert site.probe_and_pass() == []
    site.cable("s1", up=True)
    site.until_up("s1", through_tunnel=False)
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        site.nodes["l4-1"].call(unmarked)
    assert f"- local-route {host}" in site.do_pass()
    assert {flow.server for flow in site.open(version, 30)} == {"s2", "s3"}
    site.until_up("s1")
    assert f"{weight} weight 0 -> 100" in site.do_pass()
    assert {flow.server for flow in site.open(version, FLOWS)} == set(SERVERS)
    assert answers(others) == {"own": len(others)}


@pytest.mark.parametrize("version", [4, 6])
def test_a_drained_server_keeps_its_flows_until_it_is_gone(site: Site, version: int) -> None:
    """The weight is 0 already when it fails: IPVS must look up its route all the same."""
    flows = site.open(version, FLOWS)
    site.words["s1"] = "drain"
    site.probe()
    assert not [line for line in site.do_pass() if "local-route" in line]
    assert answers(flows) == {"own": FLOWS}
    site.cable("s1", up=False)
    assert len(site.probe_and_pass()) == 2
    dead, others = of(flows, "s1"), but(flows, "s1")
    assert answers(dead[1:]) == {"reset": len(dead) - 1}
    site.cable("s1", up=True)
    site.until_up("s1", through_tunnel=False)
    assert sorted(site.do_pass()) == [f"- local-route {site.address('s1', v)}" for v in (4, 6)]
    wait_until(lambda: dead[0].says() == "s1", DEADLINE_S, "an idle flow of a server that drains and is back")
    assert answers(others) == {"own": len(others)}


def test_a_server_that_people_fail_and_take_back(site: Site) -> None:
    """A false alarm: it lives, so its idle flows survive, and those that spoke meanwhile are reset."""
    flows = {version: site.open(version, FLOWS) for version in (4, 6)}
    mine = {version: of(flows[version], "s2") for version in (4, 6)}
    site.words["s2"] = "down # by mistake"
    assert len([line for line in site.probe_and_pass() if line.startswith("+ local-route")]) == 2
    for version in (4, 6):
        assert answers(mine[version][:3]) == {"reset": 3}
    site.words["s2"] = "ready"
    site.until_up("s2", through_tunnel=False)
    site.do_pass()
    site.until_up("s2")
    site.do_pass()
    for version in (4, 6):
        left = [flow for flow in flows[version] if flow not in mine[version][:3]]
        assert answers(left) == {"own": len(left)}


def test_nobody_is_failed_when_all_are(site: Site) -> None:
    """The L4 node's own cable, say: what cannot be told apart from the end of all servers ends no flow."""
    flows = site.open(4, FLOWS)
    site.cable("l4-1", up=False)
    site.probe()
    assert not any(health.up for health in site.health.values())
    assert not [line for line in site.do_pass() if "local-route" in line]
    site.cable("l4-1", up=True)
    for server in SERVERS:
        site.until_up(server)
    site.do_pass()
    wait_until(lambda: answers(flows) == {"own": FLOWS}, DEADLINE_S, "every flow to go on")
