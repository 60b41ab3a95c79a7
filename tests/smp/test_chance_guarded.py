"""Second chances beside what else guards a real server, where the kernel has all of it: nf_tables let in only those
tunnels that come from an L4 node or from a real server that sends a flow on, and IPv6 SYN cookies can be checked."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from chances import SERIALS, Chances, added, five, moved, opened_by_cookie, opened_to_be_detoured, over
from direct_site import Site
from echo import Flow

from lbnode.net.filter import FilterDriver
from lbnode.reconcile import run
from lbnode.resources import TunnelGuard
from lbnode.roles import senders
from lbnode.roles.inputs import Desired

pytestmark = pytest.mark.kernel

FLOWS = 8
"""By cookie, of each family."""
SOON_S = 2.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with five(tmp_path) as found:
        yield found


def test_a_flow_that_is_sent_on_gets_past_the_guard_of_the_next_server(site: Site) -> None:
    chances = Chances(site, FilterDriver())
    chances.learn()
    over(site, ["l4-1"])
    flows = [flow for v in (4, 6) for flow in opened_to_be_detoured(site, 2, partial(site.connect, v))]
    added(site)
    chances.learn()
    over(site, ["l4-2"])
    for version in (4, 6):
        opened_by_cookie(site, chances, version, FLOWS)
    assert chances.counted("forwarded") == 0
    assert moved(site, flows) == {"own": 2 * len(flows)}
    assert chances.counted("forwarded") >= 2 * 2
    assert chances.counted("stranger") == 0
    over(site, ["l4-2"])
    let_in_only_l4(site)
    for version in (4, 6):
        own = [flow for flow in flows if is_of(flow, version)]
        direct = next(flow for flow in own if not chances.is_detoured(flow))
        detoured = next(flow for flow in own if chances.is_detoured(flow))
        assert direct.says(SOON_S) == direct.server
        assert detoured.says(SOON_S) == "nothing", "the outer source is the server that has sent it on"


def is_of(flow: Flow, version: int) -> bool:
    return (":" in flow.source[0]) == (version == 6)


def let_in_only_l4(site: Site) -> None:
    """As if nobody gave second chances."""
    cluster = site.cluster
    rows = tuple(TunnelGuard(v, senders.PLAIN[v], 0, senders.senders(cluster, v)) for v in senders.FAMILIES)
    for name in SERIALS:
        assert site.nodes[name].call(lambda: run(Desired(rows), [FilterDriver()])).errors == []
