"""The relay and the driver, with a stand-in for ExaBGP at the other end of the pipe."""

import json

import pytest
from speaker import FIRST, ONE, RUNS, Speaker, driver, paths, want

from lbnode.bgp.driver import ExabgpDriver, peers
from lbnode.bgp.told import read_told
from lbnode.bgp.words import LOCK
from lbnode.lab.wait import wait_until
from lbnode.plan import diff
from lbnode.resources import Announcement, Running

__all__ = ["driver", "paths"]

TWO = "192.0.2.2"
SECOND = Announcement("198.51.100.2/32", ONE, "192.0.2.11", 100, ("65535:0",))


@pytest.fixture
def speaker(paths):
    speaker = Speaker(paths, {ONE: "established", TWO: "active"})
    yield speaker
    speaker.stop()


def left(driver, *rows):
    return diff(driver.observe(rows).rows, rows).changes


def wait_relay(paths):
    return wait_until(lambda: read_told(paths), 10, "the relay to speak")


def orders(paths):
    return [row["prefix"] for row in json.loads(paths.bgp_wanted.read_text())["announcements"]]


def test_without_orders_nothing_is_announced_and_nothing_withdrawn(paths, speaker):
    speaker.routes[ONE, "198.51.100.9/32"] = "of an earlier life"
    speaker.start()
    told = wait_relay(paths)
    assert told.config == "c1"
    assert [row.prefix for row in told.announced] == ["198.51.100.9/32"]
    assert list(speaker.routes) == [(ONE, "198.51.100.9/32")]
    assert all(command.startswith("show ") for command in speaker.commands)


def test_apply_announces_and_a_second_apply_has_nothing_to_do(speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST, SECOND) == []
    assert speaker.routes == {
        (ONE, "198.51.100.1/32"): f"neighbor {ONE} announce route 198.51.100.1/32 next-hop 192.0.2.11",
        (ONE, "198.51.100.2/32"): (
            f"neighbor {ONE} announce route 198.51.100.2/32 next-hop 192.0.2.11 med 100 community [65535:0]"
        ),
    }
    assert left(driver, RUNS, FIRST, SECOND) == ()
    assert want(driver, RUNS, SECOND) == []
    assert list(speaker.routes) == [(ONE, "198.51.100.2/32")]


def test_a_route_of_an_earlier_life_that_nobody_wants_is_withdrawn(speaker, driver):
    speaker.routes[ONE, "198.51.100.9/32"] = "of an earlier life"
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    assert list(speaker.routes) == [(ONE, "198.51.100.1/32")]


def test_many_routes_are_told_without_waiting_for_each(speaker, driver):
    speaker.start()
    rows = [Announcement(f"198.51.{i // 256}.{i % 256}/32", ONE, "192.0.2.11") for i in range(500)]
    assert want(driver, RUNS, *rows) == []
    assert len(speaker.routes) == 500
    assert len(speaker.commands) < 50
    assert want(driver, RUNS) == []
    assert speaker.routes == {}


def test_of_prefixes_that_are_told_together_only_the_bad_one_is_refused(speaker, driver):
    rows = [Announcement(f"198.51.100.{i}/32", ONE, "192.0.2.11") for i in range(50)]
    speaker.bad = rows[7].prefix
    speaker.start()
    said = f"cannot announce {speaker.bad} to {ONE}: ExaBGP refused it: see its log"
    assert want(driver, RUNS, *rows) == [said]
    assert len(speaker.routes) == 49
    assert want(driver, RUNS, *rows) == [said]
    speaker.bad = ""
    assert want(driver, RUNS, *rows) == []
    assert len(speaker.routes) == 50


def test_orders_for_an_exabgp_that_does_not_run_are_errors_and_stay(paths, speaker):
    driver = ExabgpDriver(paths, wait_s=0.05)
    assert want(driver, RUNS, FIRST) == [
        "cannot run ExaBGP with configuration c1: it is not running; start it: systemctl start lbnode-exabgp",
        "cannot announce 198.51.100.1/32 to 192.0.2.1: ExaBGP is not running; it will announce it when it starts",
    ]
    speaker.start()
    wait_until(lambda: left(driver, RUNS, FIRST) == (), 10, "the order to be followed")
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]


def test_orders_that_nobody_wants_any_more_go_while_exabgp_does_not_run(paths):
    driver = ExabgpDriver(paths, wait_s=0)
    want(driver, RUNS, FIRST, SECOND)
    assert want(driver, SECOND)[-1:] != []
    assert orders(paths) == ["198.51.100.2/32"]
    assert want(driver) == []
    assert orders(paths) == []
    assert left(driver) == ()


def test_a_batch_for_part_of_the_plan_does_not_drop_the_other_orders(paths):
    driver = ExabgpDriver(paths, wait_s=0)
    want(driver, RUNS, FIRST, SECOND)
    plan = diff(driver.observe((RUNS, FIRST, SECOND)).rows, (RUNS, FIRST, SECOND))
    driver.apply([change for change in plan.changes if change.row == RUNS])
    assert orders(paths) == ["198.51.100.1/32", "198.51.100.2/32"]


def test_a_program_that_does_not_run_is_waited_for_once_only(paths, speaker):
    driver = ExabgpDriver(paths, wait_s=0.2)
    want(driver, RUNS, FIRST)
    driver.wait_s = 3600
    assert len(want(driver, RUNS, FIRST)) == 2
    speaker.start()
    wait_relay(paths)
    assert want(driver, RUNS, FIRST, SECOND) == []


def test_a_peer_that_exabgp_does_not_have_is_refused_with_the_reason_and_tried_again(speaker, driver):
    speaker.start()
    stray = Announcement("198.51.100.1/32", "192.0.2.99", "192.0.2.11")
    said = "cannot announce 198.51.100.1/32 to 192.0.2.99: ExaBGP refused it: it has no neighbor 192.0.2.99"
    assert want(driver, RUNS, FIRST, stray) == [said]
    assert want(driver, RUNS, FIRST, stray) == [said]
    assert left(driver, RUNS, FIRST) != ()
    assert want(driver, RUNS, FIRST) == []
    assert left(driver, RUNS, FIRST) == ()


def test_a_reload_that_is_lost_is_told_again_until_it_took(speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    speaker.next_digest, speaker.lost_reloads = "c2", 3
    speaker.peers["192.0.2.3"] = "active"
    new = Announcement("198.51.100.1/32", "192.0.2.3", "192.0.2.11")
    assert want(driver, Running("exabgp", "c2"), FIRST, new) == []
    assert speaker.commands.count("reload") == 4
    assert ("192.0.2.3", "198.51.100.1/32") in speaker.routes


def test_a_reload_that_never_takes_is_an_error_and_announcing_goes_on(speaker, driver):
    speaker.start()
    assert want(driver, RUNS) == []
    driver.wait_s = 0.1
    errors = want(driver, Running("exabgp", "c2"), FIRST)
    assert errors[0].startswith("cannot run ExaBGP with configuration c2: it runs with c1")
    wait_until(lambda: speaker.routes, 5, "the announcement")


def test_nonsense_in_the_orders_keeps_the_last_good_ones_and_is_told(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    paths.bgp_wanted.write_text('{"announcements": [{}]}')
    wait_until(lambda: speaker.told().get("problem"), 10, "the complaint")
    assert speaker.told()["problem"].startswith(f"cannot read {paths.bgp_wanted}: KeyError")
    assert list(speaker.routes) == [(ONE, "198.51.100.1/32")]
    assert want(driver, RUNS, FIRST, SECOND) == []
    assert speaker.told()["problem"] == ""


def test_states_of_peers_are_told_with_the_time_of_their_change(paths, speaker):
    speaker.start()
    wait_relay(paths)
    assert {peer: state["state"] for peer, state in peers(paths).items()} == {ONE: "up", TWO: "down"}
    before = peers(paths)[TWO]["since"]
    speaker.say_state(TWO, "connected")
    speaker.say_state(TWO, "down", "closing connection")
    wait_until(lambda: "refuses or closes it" in peers(paths)[TWO]["reason"], 5, "the reason")
    assert peers(paths)[TWO]["since"] == before
    speaker.say_state(ONE, "down", "hold timer expired")
    wait_until(lambda: peers(paths)[ONE]["state"] == "down", 5, "the peer to be down")
    assert peers(paths)[ONE]["since"] > before
    speaker.say_state("192.0.2.77", "down")
    speaker.say_state(ONE, "up")
    wait_until(lambda: peers(paths)[ONE]["state"] == "up", 5, "the peer to be up")
    assert set(peers(paths)) == {ONE, TWO}


def test_the_relay_ends_with_exabgp_and_nobody_takes_it_for_alive(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    assert speaker.stop() == 0
    assert read_told(paths) is None
    assert peers(paths) == {}
    assert driver.observe((RUNS, FIRST)).rows == ()


def test_orders_that_were_lost_are_given_again_though_all_is_announced(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    paths.bgp_wanted.unlink()
    assert [str(change.row.key) for change in left(driver, RUNS, FIRST)] == [str(FIRST.key)]
    assert want(driver, RUNS, FIRST) == []
    assert orders(paths) == ["198.51.100.1/32"]
    assert left(driver, RUNS, FIRST) == ()


def test_an_exabgp_that_hangs_is_an_error_and_holds_up_one_batch_only(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    driver.wait_s = 0.3
    speaker.hold.acquire()
    said = "cannot announce 198.51.100.2/32 to 192.0.2.1: ExaBGP does not follow yet"
    assert want(driver, RUNS, FIRST, SECOND) == [said]
    driver.wait_s = 3600
    assert want(driver, RUNS, FIRST, SECOND) == [said]
    assert want(driver, RUNS) == ["cannot withdraw 198.51.100.1/32 to 192.0.2.1: ExaBGP does not follow yet"]
    speaker.hold.release()
    wait_until(lambda: speaker.routes == {}, 10, "the withdrawal")
    wait_until(lambda: left(driver, RUNS) == (), 10, "the relay to say so")
    driver.wait_s = 10
    assert want(driver, RUNS, FIRST) == []


def test_files_that_vanish_change_no_announcement(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    for path in (paths.bgp_wanted, paths.bgp_told, paths.bgp_told.with_name(LOCK)):
        path.unlink()
    wait_relay(paths)
    assert list(speaker.routes) == [(ONE, "198.51.100.1/32")]
    assert want(driver, RUNS, FIRST, SECOND) == []
    assert len(speaker.routes) == 2
