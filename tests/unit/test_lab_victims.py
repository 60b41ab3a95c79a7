"""Whom the fault matrix harms in each lab, and which ways lead to them."""

import pytest

from lbnode.lab import build
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios.eyes import Gaps
from lbnode.lab.scenarios.faults import Cell
from lbnode.lab.scenarios.victims import leading_to, victims
from lbnode.templates import share


def topology(name):
    return build.load(share("lab") / name, "small")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("three-tier", ["l4-1/agent", "l4-1/agent", "l4-1/relay", "l4-1/exabgp", "r1/bird"]),
        ("anycast-bird", ["server-1/agent", "server-1/bird", "edge/bird"]),
        ("anycast-frr", ["s1/agent", "s1/zebra", "s1/bfdd", "s1/bgpd", "leaf1/bgpd"]),
    ],
)
def test_the_programs_of_a_topology(name, found):
    chosen = victims(topology(name))
    assert [f"{victim.machine}/{victim.program}" for victim in chosen] == found
    assert len({victim.name for victim in chosen}) == len(chosen)


def test_some_of_them():
    three_tier = topology("three-tier")
    assert [victim.machine for victim in victims(three_tier, ["router", "relay"])] == ["l4-1", "r1"]
    with pytest.raises(LabError, match="cannot harm bgpd: there are agent, relay, exabgp, router"):
        victims(three_tier, ["bgpd", "agent"])


def test_ways_that_lead_to_a_machine():
    """By a router that knows nobody else, too; not by one that has a choice."""
    tables = {
        "leaf1": {"vip": frozenset({"s1"}), "other": frozenset({"s1"})},
        "leaf2": {"vip": frozenset({"s2", "s1b"})},
        "spine": {"vip": frozenset({"leaf1", "leaf2"}), "unreachable": frozenset()},
        "edge": {"vip": frozenset({"spine"})},
    }
    names = {"s1b": "s1"}
    assert leading_to("s1", tables, lambda hop: names.get(hop, hop)) == {"s1", "s1b", "leaf1"}
    assert leading_to("leaf1", tables, lambda hop: hop) == {"leaf1"}
    assert leading_to("nobody", tables, lambda hop: hop) == frozenset()


@pytest.mark.parametrize(
    ("broken", "first_s", "tiered", "kept"),
    [
        (0, None, True, True),
        (0, 0.1, False, True),
        (1, 0.1, False, True),  # ECMP moved it to a server that does not know it
        (1, None, False, False),
        (1, 0.1, True, False),
        (1, None, True, False),
    ],
)
def test_only_flows_that_could_have_gone_on_count(broken, first_s, tiered, kept):
    gaps = Gaps(first_s, 1, 1.0, True, 1, 2)
    assert Cell("agent", "SIGKILL", gaps, 0.0, 48, broken, 0.1, 0, tiered).kept == kept
    assert Cell("router (bird)", "SIGKILL", gaps, 0.0, 48, broken, 0.1, 0, tiered).kept == (kept or not tiered)
