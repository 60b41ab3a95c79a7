"""A node on its way out: the phases, and what a role makes of them."""

from dataclasses import replace

import pytest
from cluster import small
from hypothesis import given
from hypothesis import strategies as st

from lbnode.config.leaving import Leaving
from lbnode.maintenance import files
from lbnode.maintenance.departure import Phase, age_s, departure, step_end
from lbnode.maintenance.state import READY, Mode, parse
from lbnode.paths import Paths
from lbnode.resources import Announcement
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.leaving import second_choice
from lbnode.templates import load

NOW = 1795212000.0
RULE = Leaving(step_s=5, limit_s=30)
DRAIN = replace(parse("drain # disks"), since=NOW)
VIPS = frozenset({"198.51.100.1", "2001:db8:c633:6401::1", "2001:db8:c633:6401::4"})
TEMPLATES = load()


@pytest.mark.parametrize(
    ("after", "announced", "calm", "phase"),
    [
        (0, 3, False, Phase.STEP),
        (4.9, 3, False, Phase.STEP),
        (5.1, 3, False, Phase.STEP),  # it is to be withdrawn, and is not yet
        (5.1, 0, False, Phase.WITHDRAWN),
        (34.9, 0, False, Phase.WITHDRAWN),
        (8, 0, True, Phase.GONE),
        (35, 0, False, Phase.GONE),
    ],
)
def test_phases(after, announced, calm, phase):
    found = departure(DRAIN, RULE, NOW + after, announced, "12 packets since the last look", calm)
    assert (found.phase, found.since) == (phase, NOW)
    assert found.waits_for


def test_a_node_in_service_is_on_no_way_out():
    assert departure(READY, RULE, NOW, 3, None, False) is None
    assert age_s(READY, RULE, NOW) is None


@pytest.mark.parametrize(
    ("line", "rule", "steps"),
    [
        ("drain", RULE, True),
        ("maint", RULE, True),
        ("maint # leave=now", RULE, False),
        ("down", RULE, False),  # a node that is broken does not linger
        ("stopped", RULE, False),
        ("fail", RULE, False),
        ("drain", Leaving(step="none"), False),
        ("drain", Leaving(step_s=0), False),
    ],
)
def test_who_makes_a_step(line, rule, steps):
    state = replace(parse(line), since=NOW)
    assert (age_s(state, rule, NOW) < rule.step_s) is steps
    assert step_end(state, rule) == (NOW + rule.step_s if steps or rule.step_s == 0 else None)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_age_grows_to_the_end_of_the_step_and_no_further(one, other):
    first, second = sorted((one, other))
    ages = [age_s(DRAIN, RULE, NOW + after) for after in (first, second)]
    assert 0 <= ages[0] <= ages[1] <= RULE.step_s


def test_a_time_that_is_not_known_or_lies_ahead_makes_no_step():
    assert age_s(replace(DRAIN, since=None), RULE, NOW) == RULE.step_s
    assert age_s(DRAIN, RULE, NOW - 60) == RULE.step_s


def announced(**inputs):
    """What an L4 node announces, by VIP: the rows, and the words about them."""
    rule = inputs.pop("rule", "")
    cluster = small("  local_asn: 65001\n", f"  local_asn: 65001\n{rule}")
    found = desired("l4", Inputs(cluster, "l4-1", templates=TEMPLATES, **{"announced": VIPS, **inputs}))
    rows = [row for row in found.rows if isinstance(row, Announcement)]
    return rows, {verdict.name: verdict for verdict in found.verdicts if verdict.kind == "vip"}


def test_first_a_second_choice_then_nothing_and_back_at_once():
    usual, _ = announced()
    assert len(usual) == 3
    step, verdicts = announced(admin=DRAIN, leaving_s=4.9)
    assert step == [replace(row, communities=("65535:0",)) for row in usual]
    assert {verdict.state for verdict in verdicts.values()} == {"announced as a second choice"}
    gone, verdicts = announced(admin=DRAIN, leaving_s=5)
    assert gone == []
    assert verdicts["198.51.100.1"].reason == "this node is in drain (disks)"
    assert announced()[0] == usual


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("  leaving: {step: med, med: 500}\n", {"med": 500}),
        ("  leaving: {step: local-preference}\n", {"med": 1000000}),  # which peers of another AS are not told
        ("  attributes: {communities: ['65001:1']}\n", {"communities": ("65001:1", "65535:0")}),
    ],
)
def test_what_makes_a_second_choice(rule, change):
    usual, _ = announced(rule=rule)
    step, _ = announced(rule=rule, admin=DRAIN, leaving_s=1.0)
    assert step == [replace(row, **change) for row in usual]


def test_peers_of_the_own_as_are_told_a_local_preference():
    row = Announcement("198.51.100.1/32", "192.0.2.1", "192.0.2.11", local_preference=200)
    found = second_choice(row, Leaving(step="local-preference", local_preference=7), inside=True)
    assert found == replace(row, local_preference=7)


def test_what_is_not_announced_is_not_made_a_second_choice():
    rows, _ = announced(admin=DRAIN, leaving_s=0.1, announced=frozenset({"198.51.100.1"}))
    assert {row.prefix for row in rows} == {"198.51.100.1/32"}
    assert announced(admin=DRAIN, leaving_s=0.1, announced=frozenset())[0] == []


def test_a_damped_vip_is_a_second_choice_and_says_until_when():
    rows, verdicts = announced(damped={"198.51.100.1": NOW})
    assert {row.prefix: row.communities for row in rows} == {
        "198.51.100.1/32": ("65535:0",),
        "2001:db8:c633:6401::1/128": (),
        "2001:db8:c633:6401::4/128": (),
    }
    verdict = verdicts["198.51.100.1"]
    assert (verdict.good, verdict.state) == (True, "announced as a second choice")
    assert verdict.reason.startswith("it has come and gone too often: others are preferred until 2026-11-20T22:00:00Z;")


def test_without_a_step_a_damped_vip_is_told_by_med():
    rows, _ = announced(rule="  leaving: {step: none}\n", damped={"198.51.100.1": NOW})
    assert [row.med for row in rows] == [1000000, None, None]


def test_since_when_a_node_leaves_is_the_time_of_the_file_that_said_so_first(tmp_path):
    paths = Paths(tmp_path / "etc", tmp_path / "run")
    files.write(paths, parse("drain # disks"))
    drained = paths.agent_check.stat().st_ctime
    paths.disable.write_text("leave=now power\n")
    later = paths.disable.stat().st_ctime
    state = files.read(paths, "l4", later).state
    assert (state.since, state.at_once, state.reason, state.word) == (drained, True, "power", "down")
    paths.agent_check.unlink()
    assert files.read(paths, "l4", later).state.since == later


def test_what_is_written_for_this_boot_counts_until_it_is_taken_back(tmp_path):
    paths = Paths(tmp_path / "etc", tmp_path / "run")
    files.write(paths, parse("drain # the machine shuts down"), this_boot=True)
    assert not paths.agent_check.exists()
    assert files.read(paths, "l4", NOW).state.reason == "the machine shuts down"
    files.forget(paths, "another reason")
    assert files.read(paths, "l4", NOW).state.mode is Mode.DRAIN
    paths.etc.mkdir(exist_ok=True)
    paths.agent_check.write_text("maint # disks")
    assert files.read(paths, "l4", NOW).state.word == "maint"
    files.write(paths, READY)
    assert files.read(paths, "l4", NOW).state == READY
    assert not paths.boot_agent_check.exists()
