"""When a VIP has come and gone too often, and what is remembered of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.bgp import flaps
from lbnode.bgp.damping import damped_until, remembered
from lbnode.config.leaving import Damping
from lbnode.paths import Paths

RULE = Damping()
rules = st.builds(Damping, flaps=st.integers(1, 10), half_life_s=st.integers(1, 600), longest_s=st.integers(1, 3600))
times = st.lists(st.floats(0, 10_000), max_size=20)


@pytest.mark.parametrize(
    ("withdrawals", "end"),
    [
        ([], None),
        ([0], None),
        ([0, 1], None),
        ([0, 0, 0], 190),  # 120 * log2(3)
        ([0, 60, 120], 257),
        ([0, 120, 240, 360, 480], None),
        ([0, 30, 60, 90], 288),
        ([0] * 40, 600),
        ([0, 0, 0, 189], 310),  # one more while it is damped prolongs it
        ([0, 0, 0, 191], 190),  # one after the end does not
    ],
)
def test_the_usual_rule(withdrawals, end):
    found = damped_until(withdrawals, RULE)
    assert (found if found is None else round(found)) == end


@given(times)
def test_no_damping_where_it_is_turned_off(withdrawals):
    assert damped_until(withdrawals, Damping(flaps=0)) is None


@given(times, rules)
def test_it_ends_and_never_too_late(withdrawals, rule):
    end = damped_until(withdrawals, rule)
    if end is not None:
        assert len(withdrawals) >= rule.flaps
        assert end <= max(withdrawals) + rule.longest_s


@given(times, rules, st.integers(-1000, 1000))
def test_only_the_time_between_them_counts(withdrawals, rule, shift):
    end = damped_until(withdrawals, rule)
    moved = damped_until([at + shift for at in withdrawals], rule)
    assert moved == (None if end is None else pytest.approx(end + shift, abs=1e-3)) or _at_the_edge(withdrawals, rule)


def _at_the_edge(withdrawals, rule):
    """Where adding a number, which rounds, decides."""
    ends = {damped_until([at * (1 + e) for at in withdrawals], rule) is None for e in (-1e-9, 0, 1e-9)}
    return len(ends) > 1 or any(abs(at - (damped_until(withdrawals, rule) or at + 1)) < 1e-3 for at in withdrawals)


@given(times, rules, st.randoms())
def test_order_is_no_matter(withdrawals, rule, random):
    mixed = list(withdrawals)
    random.shuffle(mixed)
    assert damped_until(mixed, rule) == damped_until(withdrawals, rule)


@given(times, rules)
def test_a_vip_that_is_calm_is_never_damped(withdrawals, rule):
    calm = [number * 20 * rule.half_life_s for number in range(len(withdrawals))]
    end = damped_until(calm, rule)
    assert end is None or end - max(calm) < 1e-4 * rule.half_life_s or rule.flaps == 1


@given(times, rules)
def test_what_is_forgotten_makes_no_difference(withdrawals, rule):
    now = max(withdrawals, default=0)
    kept = remembered(withdrawals, rule, now)
    assert set(kept) <= set(withdrawals)
    assert all(now - at <= 10 * rule.half_life_s for at in kept)  # equal where the subtraction rounds
    whole, part = damped_until(withdrawals, rule), damped_until(kept, rule)
    if part is not None and part > now:  # what is damped with less is damped with all
        assert whole is not None
        assert whole >= part - 1


def test_flaps_are_kept_for_the_next_pass(tmp_path):
    paths = Paths(run=tmp_path)
    assert flaps.damped(paths, RULE, 1000) == {}
    for now in (1000, 1001, 1002):
        flaps.note(paths, {"198.51.100.1"}, RULE, now)
    flaps.note(paths, {"198.51.100.2"}, RULE, 1002)
    assert {vip: round(end) for vip, end in flaps.damped(paths, RULE, 1003).items()} == {"198.51.100.1": 1191}
    assert flaps.damped(paths, RULE, 1192) == {}
    assert flaps.damped(paths, RULE, 900) == {}  # a clock that was set back has forgotten
    flaps.note(paths, {"198.51.100.2"}, RULE, 9000)
    assert json.loads(paths.flaps.read_text()) == {"198.51.100.2": [9000]}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": ["b"]}', "nonsense"])
def test_a_file_that_makes_no_sense_damps_nothing(tmp_path, content):
    paths = Paths(run=tmp_path)
    paths.flaps.write_text(content)
    assert flaps.damped(paths, RULE, 1000) == {}
