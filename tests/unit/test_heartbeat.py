"""The agent's sign of life, and the relay that misses it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speaker import Speaker
from test_bgp_relay import FIRST, ONE, RUNS, left, want

from lbnode.agent.pulse import Pulse
from lbnode.bgp import heartbeat
from lbnode.bgp.driver import ExabgpDriver
from lbnode.bgp.heartbeat import Beat, DeadMan, parse, text, write
from lbnode.config.leaving import DeadMan as Rule
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths


@pytest.fixture
def paths(tmp_path):
    found = Paths(tmp_path / "etc", tmp_path / "run")
    found.bgp_heartbeat.parent.mkdir(parents=True)
    return found


@pytest.fixture
def speaker(paths):
    speaker = Speaker(paths, {ONE: "established"})
    yield speaker
    speaker.stop()


beats = st.builds(Beat, st.floats(0, 1e9), st.floats(0.1, 1e6), st.sampled_from(["keep", "withdraw"]))


@given(beats)
def test_what_is_written_is_read(beat):
    assert parse(text(beat)) == beat


@given(st.text(max_size=50))
def test_nonsense_is_refused(content):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever json says
        parse(content)


@pytest.mark.parametrize("change", [{"then": "explode"}, {"after_s": 0}, {"after_s": None}, {"at": "x"}])
def test_a_rule_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match=r"."):
        parse(json.dumps({**Beat(1, 30, "keep")._asdict(), **change}))


def test_how_long_is_left(paths):
    deadman = DeadMan(paths.bgp_heartbeat)
    assert deadman.left_s(1000) is None
    write(paths.bgp_heartbeat, Beat(1000, 30, "withdraw"))
    deadman.read()
    assert [deadman.left_s(at) for at in (1000, 1029, 1030, 1099)] == [30, 1, 0, 0]
    assert "everything is withdrawn" in deadman.words()
    deadman.ordered(1050)
    assert [deadman.left_s(at) for at in (1060, 1080)] == [20, 0]
    # The relay itself was stopped, and the agent was well: it looks before it judges.
    write(paths.bgp_heartbeat, Beat(1095, 30, "withdraw"))
    assert deadman.left_s(1100) == 25
    paths.bgp_heartbeat.write_text("{")
    deadman.read()
    assert deadman.left_s(1101) == 24
    assert "cannot read" in deadman.problem
    paths.bgp_heartbeat.unlink()
    deadman.read()
    assert deadman.left_s(1200) is None


def test_a_pass_that_does_not_end_is_no_sign_of_life(paths, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(heartbeat, "now", lambda: clock[0])

    def seen():
        return parse(paths.bgp_heartbeat.read_text()).at

    pulse = Pulse(paths)
    pulse.beat()
    assert not paths.bgp_heartbeat.exists()  # no pass has ended yet
    pulse.begin()
    pulse.end(Rule(after_s=30))
    assert seen() == 1000
    pulse.begin()
    for now, at in ((1010, 1010), (1030, 1030), (1031, 1000), (1099, 1000)):
        clock[0] = now
        pulse.beat()
        assert seen() == at
    pulse.end(Rule(after_s=30))
    pulse.beat()
    assert seen() == 1099
    pulse.stop()
    assert not paths.bgp_heartbeat.exists()


def silent(paths, then, after_s=0.2):
    """An agent that was well a moment ago, and never again."""
    write(paths.bgp_heartbeat, Beat(heartbeat.now(), after_s, then))


def test_everything_is_withdrawn_when_that_is_the_rule_and_comes_back_with_the_agent(paths, speaker):
    speaker.start()
    driver = ExabgpDriver(paths, wait_s=10)
    assert want(driver, RUNS, FIRST) == []
    silent(paths, "withdraw")
    wait_until(lambda: not speaker.routes, 10, "the withdrawal")
    told = wait_until(lambda: speaker.told().get("agent_gone") and speaker.told(), 10, "the relay to say so")
    assert told["problem"] == "the agent has given no sign of life for 0.2 s: everything is withdrawn (bgp.dead_man)"
    assert [change.row for change in left(driver, RUNS, FIRST)] == [FIRST]
    write(paths.bgp_heartbeat, Beat(heartbeat.now(), 60, "withdraw"))
    wait_until(lambda: speaker.routes, 10, "the routes")
    wait_until(lambda: speaker.told()["agent_gone"] is None, 10, "the relay to say so")
    assert left(driver, RUNS, FIRST) == ()


def test_everything_stays_when_that_is_the_rule_and_the_relay_says_so(paths, speaker):
    speaker.start()
    driver = ExabgpDriver(paths, wait_s=10)
    assert want(driver, RUNS, FIRST) == []
    silent(paths, "keep")
    told = wait_until(lambda: speaker.told().get("agent_gone") and speaker.told(), 10, "the relay to say so")
    assert "what is announced stays" in told["problem"]
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]


def test_orders_of_an_agent_that_comes_back_are_followed_before_its_first_sign_of_life(paths, speaker):
    speaker.start()
    driver = ExabgpDriver(paths, wait_s=10)
    want(driver, RUNS, FIRST)
    silent(paths, "withdraw", 5)
    write(paths.bgp_heartbeat, Beat(heartbeat.now() - 100, 5, "withdraw"))
    wait_until(lambda: not speaker.routes, 10, "the withdrawal")
    assert want(driver, RUNS, FIRST) == []
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]


def test_a_relay_that_starts_with_a_dead_agent_announces_nothing(paths, speaker):
    driver = ExabgpDriver(paths, wait_s=0)
    want(driver, RUNS, FIRST)
    write(paths.bgp_heartbeat, Beat(heartbeat.now() - 100, 5, "withdraw"))
    speaker.start()
    wait_until(lambda: speaker.told().get("agent_gone"), 10, "the relay to say so")
    assert not speaker.routes
