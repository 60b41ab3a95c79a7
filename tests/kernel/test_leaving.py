"""Real servers leave the cluster file, come, and change their weights, under traffic through two L4 nodes.

No flow of anybody else's breaks, the plan says beforehand what moves, and both L4 nodes have the same tables at every
step.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from direct_site import KEY, Balancer, Site, built, cluster, title
from echo import DEADLINE_S, Flow, answers, but, of

from lbnode.config.model import Cluster
from lbnode.lab.wait import wait_until
from lbnode.plan import Plan

pytestmark = pytest.mark.kernel

SERIALS = {f"s{n}": f"serial: {n}" for n in (1, 2, 3, 4)}
THREE = {name: SERIALS[name] for name in ("s1", "s2", "s3")}
WITHOUT_S2 = {name: SERIALS[name] for name in ("s1", "s3")}
FLOWS = 60
"""Of each family."""


def file(servers: dict[str, str], deadline_s: int = 3600) -> Cluster:
    return cluster(servers, l4=2, ipvs=f"removal_deadline_s: {deadline_s}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Four machines, three of them in the cluster file."""
    with built(file(SERIALS), file(THREE), tmp_path) as found:
        yield found


def opened(site: Site, count: int = FLOWS) -> list[Flow]:
    return [*site.open(4, count), *site.open(6, count)]


def of_clients(plan: Plan) -> list[str]:
    """The changes of the service's own rows."""
    names = tuple(f" {key}" for key in KEY.values())
    return [line for line in map(str, plan.changes) if any(name in line for name in names)]


def rows(site: Site, server: str) -> list[str]:
    """As titles, in the order of plans."""
    return [title(site.address(server, version), version) for version in (4, 6)]


def weights(site: Site, version: int = 4) -> list[dict[str, int]]:
    """By server, oldest first; of each L4 node."""
    names = {site.address(server, version): server for server in SERIALS}
    found = [balancer.weights(version) for balancer in site.balancers]
    return [{names[address]: weight for address, weight in each.items()} for each in found]


def impacts(plan: Plan) -> list[tuple[float, float]]:
    """What share of each service's new flows moves, and how much of it has to."""
    assert [change.service for change in plan.impact] == list(KEY.values())
    return [tuple(change.impact) for change in plan.impact]


def until_something_to_do(site: Site, balancer: Balancer) -> Plan:
    def found() -> Plan | None:
        plan = balancer.plan(site.cluster)
        return plan if len(of_clients(plan)) == 2 else None

    return wait_until(found, DEADLINE_S, "connections to end")


def settings(site: Site) -> set[str]:
    return {balancer.setting("net.ipv4.vs.expire_nodest_conn") for balancer in site.balancers}


def test_one_that_leaves_the_file_keeps_its_place_until_its_flows_have_ended(site: Site) -> None:
    flows = opened(site)
    mine, others = of(flows, "s2"), but(flows, "s2")
    site.cluster = file(WITHOUT_S2)
    site.probe()
    told = 0
    for balancer in site.balancers:
        plan = balancer.plan(site.cluster)
        lines = of_clients(plan)
        starts = [f"~ destination {row} weight 100 -> 0  # leaves when its " for row in rows(site, "s2")]
        assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True, True], lines
        assert all(line.endswith(" have ended, in 3600 s at the latest") for line in lines)
        waiting = [line.replace(" weight 100 -> 0  #", ":").removeprefix("~ destination ") for line in lines]
        assert sorted(plan.waiting) == sorted(waiting)
        for moved, unavoidable in impacts(plan):
            assert unavoidable <= moved
            assert moved == pytest.approx(1 / 3, abs=0.01)
        told += sum(int(line.split(" its ")[1].split()[0]) for line in lines)
    assert told == len(mine)

    site.do_pass()
    assert weights(site) == [{"s1": 100, "s2": 0, "s3": 100}] * 2
    assert answers(flows) == {"own": len(flows)}
    later = opened(site, 30)
    assert {flow.server for flow in later} == {"s1", "s3"}
    assert not any(balancer.plan(site.cluster) for balancer in site.balancers)

    site.end(mine)
    for balancer in site.balancers:
        plan = until_something_to_do(site, balancer)
        assert of_clients(plan) == [f"- destination {row}" for row in rows(site, "s2")]
        assert plan.waiting == ()
        for moved, unavoidable in impacts(plan):
            # Its own share has moved before, to where the fallback leads. Half of that stands with the other of the
            # two in the table that is built without it.
            assert moved == pytest.approx(1 / 6, abs=0.03)
            assert unavoidable == pytest.approx(0, abs=0.01)
    site.do_pass()
    assert weights(site) == [{"s1": 100, "s3": 100}] * 2
    assert settings(site) == {"0"}
    assert answers([*others, *later]) == {"own": len(others) + len(later)}


def test_at_the_deadline_the_flows_it_still_has_end(site: Site) -> None:
    flows = opened(site)
    mine, others = of(flows, "s2"), but(flows, "s2")
    site.cluster = file(WITHOUT_S2, deadline_s=2)
    site.probe()

    def gone() -> bool:
        for balancer in site.balancers:
            balancer.do_pass(site.cluster)
        return weights(site) == [{"s1": 100, "s3": 100}] * 2

    wait_until(gone, DEADLINE_S, "the deadline")
    assert settings(site) == {"0"}
    site.check_tables()
    # Their next packet is taken for the middle of a flow, and led to a server that does not know it.
    assert answers(mine) == {"reset": len(mine)}
    assert answers(others) == {"own": len(others)}
    assert {flow.server for flow in opened(site, 30)} == {"s1", "s3"}


def test_one_that_comes_back_into_the_file_in_time_loses_nothing(site: Site) -> None:
    flows = opened(site)
    site.cluster = file(WITHOUT_S2)
    site.probe_and_pass()
    assert weights(site) == [{"s1": 100, "s2": 0, "s3": 100}] * 2
    site.cluster = file(THREE)
    for balancer in site.balancers:
        plan = balancer.plan(site.cluster)
        lines = [line.split("  # ")[0] for line in of_clients(plan)]
        assert lines == [f"~ destination {row} weight 0 -> 100" for row in rows(site, "s2")]
        assert plan.waiting == ()
    site.do_pass()
    assert weights(site) == [{"s1": 100, "s2": 100, "s3": 100}] * 2
    assert answers(flows) == {"own": len(flows)}
    assert {flow.server for flow in opened(site, 30)} == set(THREE)


@pytest.mark.parametrize("place", ["last in the file", "first in the file"])
def test_one_that_comes_is_one_new_destination(site: Site, place: str) -> None:
    flows = opened(site)
    last = {**THREE, "s4": SERIALS["s4"]}
    site.cluster = file(last if place.startswith("last") else {"s4": SERIALS["s4"], **THREE})
    for balancer in site.balancers:
        balancer.prepare(site.cluster)
    site.probe()
    for balancer in site.balancers:
        plan = balancer.plan(site.cluster)
        lines = [line.split("  # ")[0] for line in of_clients(plan)]
        assert lines == [f"+ destination {row} weight 100 forwarding tunnel ipip" for row in rows(site, "s4")]
        for moved, unavoidable in impacts(plan):
            assert unavoidable <= moved
            assert moved == pytest.approx(0.25, abs=0.02)
            assert unavoidable == pytest.approx(0.25, abs=0.01)
    site.do_pass()
    for version in (4, 6):
        assert [list(each) for each in weights(site, version)] == [["s1", "s2", "s3", "s4"]] * 2
    assert answers(flows) == {"own": len(flows)}
    assert {flow.server for flow in opened(site, 30)} == set(last)


def test_another_weight_moves_new_flows_alone(site: Site) -> None:
    flows = opened(site)
    site.cluster = file({**THREE, "s1": "serial: 1, weight: 50"})
    site.probe()
    for balancer in site.balancers:
        plan = balancer.plan(site.cluster)
        lines = [line.split("  # ")[0] for line in of_clients(plan)]
        assert lines == [f"~ destination {row} weight 100 -> 50" for row in rows(site, "s1")]
        for moved, unavoidable in impacts(plan):
            assert unavoidable == pytest.approx(1 / 3 - 1 / 5, abs=0.01)
            assert unavoidable <= moved < 0.16
    site.do_pass()
    assert answers(flows) == {"own": len(flows)}
    assert weights(site) == [{"s1": 50, "s2": 100, "s3": 100}] * 2
