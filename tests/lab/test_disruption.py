"""`lbnode lab disruption` as a user runs it: no event breaks a flow that tier 2 could have kept."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab
LBNODE = Path(sys.executable).with_name("lbnode")
FLOWS = 240
SECOND_CHANCE = ("l7-drained", "l7-returned", "two-changes", "l4-late")
PROMISED = ("l4-drained", "l4-killed", "l7-killed", "two-at-once", *SECOND_CHANCE)


def disruption(*arguments):
    command = [LBNODE, "lab", "disruption", "three-tier", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The events that promise something in every phase, in one run."""
    folder = tmp_path_factory.mktemp("disruption")
    events = [f"--event={name}" for name in PROMISED]
    done = disruption(f"--flows={FLOWS}", *events, f"--logs={folder}", f"--json={folder / 'result.json'}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text()) | {"out": done.stdout}


@pytest.fixture(params=PROMISED)
def event(request, result):
    return next(event for event in result["events"] if event["event"] == request.param)


def test_nothing_breaks_that_could_be_kept(event):
    assert [flow for flow in event["broken_flows"] if flow["avoidable"]] == []
    assert (event["opened"], event["avoidable"], event["kept"]) == (FLOWS, 0, True)


@pytest.mark.parametrize("name", SECOND_CHANCE)
def test_flows_were_saved_by_a_second_chance(result, name):
    """After a change of real servers some flows come to the wrong one, and go on to the one that has them."""
    assert next(event for event in result["events"] if event["event"] == name)["sent_on"] > 0


def test_next_to_nobody_needs_one_while_the_tables_stay(result):
    """What is sent on then is the last packet of a flow that has just ended: it has no socket any more."""
    assert next(event for event in result["events"] if event["event"] == "l4-drained")["sent_on"] < FLOWS // 20


def test_what_was_not_broken_ended_whole(event):
    assert event["finished"] == FLOWS - event["broken"]
    assert event["broken"] <= event["on_lost_servers"]


def test_flows_have_moved_between_l4_nodes(event):
    """Every flow that lives on, of both families."""
    assert event["moved"] >= event["finished"] > FLOWS / 2


def test_flows_by_udp_keep_their_servers(event):
    """No event is about a backend: equal tables bring every flow to the one it is on, wherever ECMP moves it."""
    by_udp = event["udp"]
    assert (by_udp["opened"], by_udp["broken"], by_udp["answered_elsewhere"]) == (FLOWS // 5, 0, 0)
    assert by_udp["moved"] == by_udp["finished"] == by_udp["opened"]
    assert by_udp["datagrams"] > by_udp["opened"]


def test_a_machine_that_dies_takes_its_flows_with_it(result):
    events = {event["event"]: event for event in result["events"]}
    assert events["l4-killed"]["broken"] == events["l4-drained"]["broken"] == 0
    assert events["l7-killed"]["broken"] == events["l7-killed"]["on_lost_servers"] > 0


def test_new_requests_were_made_all_the_time(event):
    assert event["new_requests"] > 24
    if "l7-killed" != event["event"] != "two-at-once":
        assert event["new_requests_failed"] == 0, event["failures"]


def test_the_table_has_a_row_for_every_event(result):
    table = result["out"].rpartition("avoidable breaks are")[2]
    for event in result["events"]:
        rows = re.findall(rf"^[\d. ]+{re.escape(event['title'])}\s+\d", table, re.MULTILINE)
        assert len(rows) == 2, "one of all flows, one of those by UDP"


def test_an_unknown_event_is_told_with_the_known_ones():
    done = disruption("--event=nonsense")
    assert done.returncode == 69
    assert "cannot find event nonsense: there are l4-drained, l4-killed" in done.stderr


def test_a_stack_takes_no_steps():
    command = [LBNODE, "lab", "run", "three-tier", "--stack=keepalived", "--only=spread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
