"""When a node's desired state is worked out anew."""

from dataclasses import replace

import pytest
from cluster import small

from lbnode.decisions import same
from lbnode.health.state import Health
from lbnode.maintenance.state import parse
from lbnode.roles.inputs import Inputs
from lbnode.roles.prober import Prober
from lbnode.templates import load

CLUSTER = small("pool: web}\n  direct", "pool: web, slow_start_s: 30, ipvs: {scheduler: wlc}}\n  direct")
PROBE = Prober(CLUSTER, "l4-1").probes()[0]
BEFORE = Inputs(CLUSTER, "l4-1", health={PROBE: Health(True, "fine", back_for_s=31.0)}, templates=load())


def test_as_long_as_nothing_changes_it_stays():
    later = replace(BEFORE, health={PROBE: Health(True, "fine", back_for_s=36.0)}, templates=load())
    assert same(BEFORE, later)


@pytest.mark.parametrize(
    "change",
    [
        {"admin": parse("drain")},
        {"health": {PROBE: Health(False, "HTTP 500")}},
        {"health": {}},
        {"health": {PROBE: Health(True, "fine", back_for_s=29.0)}},
        {"ended": frozenset({"192.0.2.193"})},
        {"announced": frozenset({"198.51.100.1"})},
        {"cluster": small()},
        {"haproxy_version": (3, 0)},
    ],
)
def test_whatever_it_depends_on_counts(change):
    assert not same(replace(BEFORE, **change), BEFORE)
    assert not same(BEFORE, replace(BEFORE, **change))
