"""The page of measurements cannot say what was not measured; and the bench's own sums are right."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import page, peers, site
from bench.figure import Figure
from lbnode.config.load import parse
from lbnode.maintenance.state import READY
from lbnode.resources import Destination, DestinationOrder, VirtualService
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.templates import load

BENCH = Path(__file__).parents[2] / "bench"
SIZE = site.Size(230, 3)


def test_the_page_is_what_the_results_say():
    assert page.render(json.loads((BENCH / "results.json").read_text())) == (BENCH / "RESULTS.md").read_text()


def test_results_name_no_host_and_no_path():
    text = (BENCH / "results.json").read_text()
    assert "/home" not in text
    assert "/tmp" not in text  # noqa: S108 - a word that must not be there
    assert set(json.loads(text)["machine"]) == {"processor", "processors", "memory_gb", "kernel"}


@pytest.mark.parametrize(
    ("values", "goal", "reached"),
    [
        ({"lbnode": [9.0, 10.0, 50.0], "ipvsadm": [190.0, 200.0, 900.0], "keepalived": [201.0]}, 20, True),
        ({"lbnode": [9.0, 10.0, 50.0], "ipvsadm": [190.0, 200.0, 900.0], "keepalived": [199.0]}, 20, False),
        ({"lbnode": [11.0], "ipvsadm": [200.0]}, 0, None),
        ({"lbnode": [150.0, 250.0, 170.0]}, 200, True),
        ({"lbnode": [250.0]}, 200, False),
    ],
)
def test_a_goal_is_reached_by_medians_and_against_each_of_the_others(values, goal, reached):
    found = Figure("what", "ms", values, goal)
    assert found.reached is reached
    assert Figure.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_the_cluster_file_makes_the_rows_that_are_measured():
    cluster = parse(site.cluster_file(SIZE, {"192.0.2.2": 50}))
    made = desired("l4", Inputs(cluster, site.NODE, READY, templates=load())).rows
    kinds = (VirtualService, Destination, DestinationOrder)
    ours, theirs = site.rows(SIZE, {"192.0.2.2": 50}), [row for row in made if isinstance(row, kinds)]
    assert {row.key: asdict(row) for row in ours} == {row.key: asdict(row) for row in theirs}


def test_the_peers_get_as_many_destinations():
    assert peers.restore_text(SIZE).count("\n-a ") == SIZE.services * SIZE.destinations
    text = peers.keepalived_text(SIZE, {(0, "192.0.2.1"): 7})
    assert text.count("real_server") == SIZE.services * SIZE.destinations
    assert text.count("weight 7 ") == 1
