"""The last line of defence: what may be announced at all, and how the relay asks."""

import json
import random
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speaker import FIRST, ONE, RUNS, Speaker, driver, paths, want

from lbnode.bgp.driver import peers
from lbnode.bgp.guard import Guard
from lbnode.bgp.told import read_told
from lbnode.config.load import parse
from lbnode.config.model import Bgp
from lbnode.health.state import Health
from lbnode.lab.wait import wait_until
from lbnode.resources import Announcement, File
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.own_check import own_checks
from lbnode.templates import load

__all__ = ["driver", "paths"]

STRAY = Announcement("203.0.113.9/32", ONE, "192.0.2.11")


def network(number, length):
    return ip_network((number, length), strict=False)


NETWORKS = st.one_of(
    st.builds(network, st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(network, st.integers(2**32, 2**128 - 1), st.integers(0, 128)),
)


@given(st.lists(NETWORKS, max_size=8), NETWORKS)
def test_a_prefix_is_permitted_when_it_lies_in_one_of_the_networks(networks, prefix):
    inside = any(one.version == prefix.version and prefix.subnet_of(one) for one in networks)
    assert Guard(networks).permits(prefix) is inside
    assert Guard.from_text(Guard(networks).text).networks == frozenset(networks)


@pytest.mark.parametrize(
    "text", ["", "198.51.100.0/24\n", Guard(()).text + "198.51.100.1/24\n", Guard(()).text + "all\n"]
)
def test_a_list_that_is_not_ours_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        Guard.from_text(text)


CLUSTER = parse(
    """
bgp: {local_asn: 65001, peers: {r1: {address: 192.0.2.1, asn: 65000}}}
nodes: {s1: {role: backend, ipv4: 192.0.2.11}}
pools: {web: {}}
services: {www: {vips: [198.51.100.1], pool: web, through: backend, announce: backend}}
"""
)


def wanted(cluster):
    health = {check.probe: Health(True) for check in own_checks(cluster, "s1")}
    return desired("backend", Inputs(cluster, "s1", health=health, templates=load()))


def test_without_a_list_the_vips_may_be_announced_and_nothing_else():
    (file,) = (row for row in wanted(CLUSTER).rows if isinstance(row, File) and row.path.endswith("announceable"))
    assert Guard.from_text(file.content).networks == {ip_network("198.51.100.1/32")}


def test_a_role_announces_nothing_outside_of_the_list():
    # Such a file is refused before; here the role is asked all the same.
    bgp = Bgp.model_validate({**CLUSTER.bgp.model_dump(), "announceable": ["203.0.113.0/24"]})
    found = wanted(CLUSTER.model_copy(update={"bgp": bgp}))
    assert not [row for row in found.rows if isinstance(row, Announcement)]
    vip = next(verdict for verdict in found.verdicts if verdict.kind == "vip")
    assert vip.reason == "outside of what the cluster file lets be announced"


@pytest.fixture
def speaker(paths):
    speaker = Speaker(paths, {ONE: "established"})
    yield speaker
    speaker.stop()


def test_the_relay_refuses_what_is_outside_and_says_so(paths, speaker, driver):
    speaker.start()
    why = f"it is outside of what {paths.announceable} permits"
    assert want(driver, RUNS, FIRST, STRAY) == [f"cannot announce {STRAY.title}: {why}"]
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]
    assert not [command for command in speaker.commands if "203.0.113.9" in command]


def test_what_is_announced_and_not_permitted_any_more_is_withdrawn(paths, speaker, driver):
    speaker.permit("198.51.100.0/24", "203.0.113.0/24")
    speaker.start()
    assert want(driver, RUNS, FIRST, STRAY) == []
    speaker.permit("198.51.100.0/24")
    assert want(driver, RUNS, FIRST) == []
    paths.bgp_wanted.write_text(paths.bgp_wanted.read_text())
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]


def test_without_a_list_nothing_new_is_announced_and_nothing_withdrawn(paths, speaker, driver):
    speaker.routes[ONE, FIRST.prefix] = "of an earlier life"
    speaker.permit()
    paths.announceable.write_text("nonsense")
    speaker.start()
    wait_until(lambda: read_told(paths), 10, "the relay to speak")
    other = Announcement("198.51.100.2/32", ONE, "192.0.2.11")
    errors = want(driver, RUNS, FIRST, other)
    assert f"cannot announce {other.title}: {paths.announceable} cannot be read" in errors
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]
    assert "announcing nothing new" in speaker.told()["problem"]
    speaker.permit("198.51.100.0/24")
    assert want(driver, RUNS, FIRST, other) == []
    assert speaker.told()["problem"] == ""


def test_a_list_that_is_lost_leaves_the_one_before_in_force(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    paths.announceable.unlink()
    second = Announcement("198.51.100.2/32", ONE, "192.0.2.11")
    assert want(driver, RUNS, FIRST, second) == []
    assert "going by what it said before" in speaker.told()["problem"]


def test_random_lines_into_the_relay_do_no_harm(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    life, pid = speaker.told()["since"], speaker.relay.pid
    chance = random.Random(1)  # noqa: S311
    scraps = ["done", "error", "{", "}", '"type"', '"state"', "neighbor", ONE, "[]", "null", "\x00", "\\", " ", "up"]
    lines = ["".join(chance.choices(scraps, k=chance.randrange(12))) for _ in range(5_000)]
    lines += [
        json.dumps({"type": "state", "neighbor": {"address": {"peer": peer}, "state": state, "reason": reason}})
        for peer in ([], {}, None, 7, "192.0.2.77")
        for state in ([], "up", None)
        for reason in ({}, "x", None)
    ]
    lines += [chance.randbytes(40).decode("latin-1").replace("\n", "") for _ in range(5_000)]
    for line in [*lines, "x" * (3 << 20)]:
        speaker.say(line)
    second = Announcement("198.51.100.2/32", ONE, "192.0.2.11")
    assert want(driver, RUNS, FIRST, second) == []
    assert sorted(prefix for _, prefix in speaker.routes) == [FIRST.prefix, second.prefix]
    assert (speaker.told()["since"], speaker.told()["pid"]) == (life, pid)
    assert set(peers(paths)) == {ONE}


def test_random_orders_do_no_harm(paths, speaker, driver):
    speaker.start()
    assert want(driver, RUNS, FIRST) == []
    chance = random.Random(2)  # noqa: S311
    for _ in range(100):
        scratch = paths.bgp_wanted.with_name("scratch")
        scratch.write_bytes(chance.randbytes(chance.randrange(2_000)))
        scratch.replace(paths.bgp_wanted)
    wait_until(lambda: speaker.told()["problem"], 10, "the complaint")
    assert list(speaker.routes) == [(ONE, FIRST.prefix)]
    second = Announcement("198.51.100.2/32", ONE, "192.0.2.11")
    assert want(driver, RUNS, FIRST, second) == []


def test_peers_that_restart_gracefully_are_told_that_they_have_heard_all(paths, speaker, driver):
    speaker.restarts = True
    speaker.start()
    wait_until(lambda: read_told(paths), 10, "the relay to speak")
    assert not [command for command in speaker.commands if " eor " in command]
    assert want(driver, RUNS, FIRST) == []
    end = f"neighbor {ONE} announce eor ipv4 unicast"
    wait_until(lambda: speaker.commands[-1] == end, 10, "the end of the routes")
    speaker.say_state(ONE, "down", "closed")
    speaker.say_state(ONE, "up")
    wait_until(lambda: speaker.commands.count(end) == 2, 10, "the end of the routes, of the new session")
