"""What the stacks of a lab are given to work with."""

from pathlib import Path

import pytest

from lbnode.config.load import load
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios import disruption
from lbnode.lab.served import Served, echo_ports, served
from lbnode.lab.stacks.choice import STACKS, stack_of
from lbnode.lab.stacks.own import without

CLUSTER = Path(__file__).parents[2] / "lab/three-tier/cluster.yaml"


@pytest.mark.parametrize("name", STACKS)
def test_every_stack_can_be_had_by_name(name):
    assert stack_of(name).name == name


def test_an_unknown_stack_is_told_with_the_known_ones():
    with pytest.raises(
        LabError, match="cannot find stack 'seesaw': there are lbnode, lbnode-without-second-chance, keepalived"
    ):
        stack_of("seesaw")


def test_a_shorter_cluster_file_differs_by_its_nodes_alone(tmp_path):
    shorter = tmp_path / "cluster.yaml"
    shorter.write_text(without(CLUSTER, {"l7-4"}))
    whole, less = load(CLUSTER), load(shorter)
    assert list(less.nodes) == [name for name in whole.nodes if name != "l7-4"]
    assert {name: whole.nodes[name] for name in less.nodes} == dict(less.nodes)
    assert (less.services, less.pools, less.bgp) == (whole.services, whole.pools, whole.bgp)


def test_the_whole_file_stays_as_it_is():
    assert without(CLUSTER, set()) == CLUSTER.read_text()


def test_events_are_chosen_in_the_order_of_the_request():
    assert [event.name for event in disruption.chosen(["l7-killed", "l4-cut"])] == ["l7-killed", "l4-cut"]
    assert disruption.chosen([]) == disruption.EVENTS


def test_names_of_events_are_unique():
    names = [event.name for event in disruption.EVENTS]
    assert len(set(names)) == len(names)


def test_what_is_served_names_the_machines_that_serve_it():
    found = {(one.vip, one.port): one for one in served(load(CLUSTER), ["l7-2"])}
    assert found["198.51.100.1", 80] == Served("198.51.100.1", 80, "tcp", "l7", "mh", ("l7-2",))
    assert found["198.51.100.5", 7] == Served("198.51.100.5", 7, "udp", "backend", "mh", ("s1", "s2"))
    assert {one.servers for one in served(load(CLUSTER)) if one.through == "l7"} == {("l7-1", "l7-2", "l7-3", "l7-4")}
    assert echo_ports(load(CLUSTER)) == {"s1": [7], "s2": [7]}
