"""Flows that two L4 nodes disagree about, because real servers came, drained or came back: with a second chance they go
on, without one they are reset. Real packets, real sockets, both families.

Flows begin at one L4 node; then something changes, and then the other one carries all of them, which has no entry for
any.
"""

import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from direct_site import KEY, VIP, Site, built, cluster, only
from echo import DEADLINE_S, Flow, answers

from lbnode import impact, maglev
from lbnode.chance import generations, program
from lbnode.chance.driver import ChanceDriver
from lbnode.chance.generations import Past
from lbnode.config.model import Cluster
from lbnode.lab import links
from lbnode.lab.links import Route
from lbnode.maglev import Table
from lbnode.reconcile import run
from lbnode.roles import desired
from lbnode.roles.inputs import Chance, Inputs

pytestmark = pytest.mark.kernel

FOLDER = Path("/sys/fs/bpf/lbnode")
SERIALS = {f"s{number}": f"serial: {number}" for number in range(1, 6)}
FOUR = {name: SERIALS[name] for name in list(SERIALS)[:4]}
FLOWS = 60
"""Of each family."""


def file(servers: dict[str, str]) -> Cluster:
    return cluster(servers, l4=2)


class Chances:
    """The second chance on every real server, by what the L4 nodes have in their kernels."""

    def __init__(self, site: Site) -> None:
        self.site, self.past = site, Past()

    def learn(self) -> None:
        """Asks both L4 nodes, as agents do, and tells all real servers."""
        told = []
        for balancer in self.site.balancers:
            found = balancer.plan(self.site.cluster)
            tables = impact.tables(impact.remembering(found.actual, found.desired))
            told.append(generations.now({str(key): tables[key] for key in KEY.values()}, (), time.time()))
        self.past = generations.merged(self.past, told, time.time(), 3600)
        for name in SERIALS:
            self._make(name, Chance(program.built()[1], ("eth0",)))

    def _make(self, name: str, chance: Chance) -> None:
        drivers = [ChanceDriver(FOLDER)]
        inputs = Inputs(self.site.machines, name, past=self.past, chance=chance)
        done = self.site.nodes[name].call(lambda: run(only(desired("backend", inputs), drivers), drivers))
        assert done.errors == []

    def counted(self, reason: str) -> int:
        return sum(self.site.nodes[name].call(lambda: program.counters(FOLDER))[reason] for name in SERIALS)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Five real servers, four of them in the cluster file."""
    with built(file(SERIALS), file(FOUR), tmp_path) as found:
        yield found


@pytest.fixture
def chances(site: Site) -> Chances:
    made = Chances(site)
    made.learn()
    return made


def opened(site: Site) -> list[Flow]:
    """All of them by the first L4 node."""
    over(site, ["l4-1"])
    return [*site.open(4, FLOWS), *site.open(6, FLOWS)]


def over(site: Site, names: Sequence[str]) -> None:
    """The client sends everything by these L4 nodes."""
    for version in (4, 6):
        via = tuple(str(site.machines.nodes[name].address(version)) for name in names)
        links.route(site.nodes["client"], Route(f"{VIP[version]}/{32 if version == 4 else 128}", via))


def moved(site: Site, flows: Sequence[Flow]) -> dict[str, int]:
    """What becomes of the flows, met by the other L4 node and then by both."""
    found: dict[str, int] = {}
    for names in (["l4-2"], ["l4-1", "l4-2"]):
        over(site, names)
        for word, count in answers(flows).items():
            found[word] = found.get(word, 0) + count
    return found


def added(site: Site) -> None:
    site.cluster = file(SERIALS)
    site.probe_and_pass()


def drained(site: Site) -> None:
    site.words["s1"] = "drain"
    site.probe_and_pass()


def returned(site: Site) -> None:
    site.words["s1"] = "ready"
    site.until_up("s1")
    site.do_pass()


def both(site: Site) -> None:
    added(site)
    drained(site)


CHANGES: dict[str, tuple[Callable[[Site], None] | None, Callable[[Site], None]]] = {
    "added": (None, added),
    "drained": (None, drained),
    "returned": (drained, returned),
    "added, and another drained": (None, both),
}


@pytest.mark.parametrize(("before", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_no_flow_breaks(site: Site, chances: Chances, before: Callable[[Site], None] | None, change: object) -> None:
    if before is not None:
        before(site)
        chances.learn()
    flows = opened(site)
    assert chances.counted("forwarded") == 0
    change(site)  # type: ignore[operator]
    chances.learn()
    assert moved(site, flows) == {"own": 2 * len(flows)}
    assert chances.counted("forwarded") > 0
    assert chances.counted("alone") == chances.counted("two-hops") == chances.counted("stranger") == 0
    settled = chances.counted("forwarded")
    assert set(answers(opened(site))) == {"own"}
    assert chances.counted("forwarded") == settled


def test_without_one_some_are_reset(site: Site) -> None:
    """What the others show would be worth nothing if it were so anyhow."""
    flows = opened(site)
    added(site)
    over(site, ["l4-2"])
    assert answers(flows).get("reset", 0) > 0


def test_real_servers_that_hear_late_save_them_too(site: Site, chances: Chances) -> None:
    """Nobody has told them yet of the one that was added, and which now gets flows of theirs."""
    flows = opened(site)
    added(site)
    assert moved(site, flows) == {"own": 2 * len(flows)}
    assert chances.counted("forwarded") > 0


def test_two_changes_need_two_hops(site: Site, chances: Chances) -> None:
    """Flows of two generations, and a table of before both that is tried in vain first."""
    first = opened(site)
    drained(site)
    chances.learn()
    second = opened(site)
    added(site)
    returned(site)
    chances.learn()
    assert moved(site, [*first, *second]) == {"own": 2 * len([*first, *second])}
    assert chances.counted("forwarded-again") > 0


def test_two_mib_go_through_the_detour(site: Site, chances: Chances) -> None:
    """By flows that the other L4 node sends to the wrong server, in segments that fit into the tunnel: fragments of the
    outer packet are not sent on. Real servers tell clients so (MssClamp); this kernel has no nf_tables for that."""
    site.nodes["client"].run(["ip", "link", "set", "eth0", "mtu", "1400"], check=True)
    flows = opened(site)
    added(site)
    chances.learn()
    over(site, ["l4-2"])
    for version in (4, 6):
        table = chances.past.generations(str(KEY[version]))[0].table
        detoured = [flow for flow in flows if _is_detoured(site, flow, table, version)][:3]
        assert detoured
        before = chances.counted("forwarded")
        for flow in detoured:
            _upload(flow, 1 << 21)
            assert flow.says() == flow.server
        assert chances.counted("forwarded") > before + len(detoured)


def _is_detoured(site: Site, flow: Flow, table: Table, version: int) -> bool:
    source, port, *_ = flow.end.getsockname()
    if (":" in source) != (version == 6):
        return False
    target = maglev.lookup(table, source, port).server
    return target is not None and target.address != site.address(flow.server, version)


def _upload(flow: Flow, size: int) -> None:
    """Writes so much. The server answers each piece with its name, which must not fill up the way back."""
    flow.end.setblocking(False)
    left, deadline = size, time.monotonic() + DEADLINE_S
    with selectors.DefaultSelector() as selector:
        selector.register(flow.end, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while left or selector.select(0.5):
            assert time.monotonic() < deadline
            for _, ready in selector.select(1):
                if ready & selectors.EVENT_READ:
                    assert flow.end.recv(1 << 16)
                if left and ready & selectors.EVENT_WRITE:
                    left -= flow.end.send(b"?" * min(left, 1 << 16))
            if not left:
                selector.modify(flow.end, selectors.EVENT_READ)


def test_removed_it_leaves_everything_to_the_kernel(site: Site, chances: Chances) -> None:
    flows = opened(site)
    for name in SERIALS:
        chances._make(name, Chance(refused="for this test"))
        assert not site.nodes[name].exists(FOLDER)
    assert answers(flows) == {"own": len(flows)}
