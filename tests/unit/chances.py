"""Five real servers with direct return, each with the classifier, and two L4 nodes that disagree about flows: those
begin at one; then something changes, and then the other one carries all of them, which has no entry for any.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from direct_site import KEY, VIP, Site, built, cluster, only
from echo import DEADLINE_S, Flow, answers

from lbnode import impact, maglev
from lbnode.chance import generations, program
from lbnode.chance.driver import ChanceDriver
from lbnode.chance.generations import Past
from lbnode.config.model import Cluster
from lbnode.lab import links
from lbnode.lab.links import Route
from lbnode.lab.wait import wait_until
from lbnode.reconcile import run
from lbnode.roles import desired, second_chance
from lbnode.roles.inputs import Chance, Inputs

FOLDER = Path("/sys/fs/bpf/lbnode")
SERIALS = {f"s{number}": f"serial: {number}" for number in range(1, 6)}
RELAY = "s5"
"""Added later, it gets flows that are others'."""
FOUR = {name: SERIALS[name] for name in list(SERIALS)[:4]}
FLOWS = 60
"""Of each family."""


def file(servers: dict[str, str]) -> Cluster:
    return cluster(servers, l4=2)


class Chances:
    """The second chance on every real server, by what the L4 nodes have in their kernels."""

    def __init__(self, site: Site, *more: Any) -> None:
        """`more`: drivers whose rows the real servers have as well."""
        self.site, self.past, self.more = site, Past(), more

    def learn(self) -> None:
        """Asks both L4 nodes, as agents do, and tells all real servers."""
        told = []
        for balancer in self.site.balancers:
            found = balancer.plan(self.site.cluster)
            tables = impact.tables(impact.remembering(found.actual, found.desired))
            told.append(generations.now({str(key): tables[key] for key in KEY.values()}, (), time.time()))
        self.past = generations.merged(self.past, told, time.time(), 3600)
        for name in SERIALS:
            self.make(name, Chance(program.built()[1], ("eth0",)))

    def make(self, name: str, chance: Chance) -> None:
        drivers = [ChanceDriver(FOLDER), *self.more]
        inputs = Inputs(self.site.machines, name, past=self.past, chance=chance, filters=bool(self.more))
        done = self.site.nodes[name].call(lambda: run(only(desired("backend", inputs), drivers), drivers))
        assert done.errors == []

    def counted(self, reason: str) -> int:
        return sum(self.site.nodes[name].call(lambda: program.counters(FOLDER))[reason] for name in SERIALS)

    def settled(self) -> int:
        """The packets that have been sent on, when no more follow: acknowledgements may come late (TCP_DELACK_MAX, 0.2
        seconds)."""
        looks = [-1]

        def same() -> bool:
            looks.append(self.counted("forwarded"))
            return looks[-1] == looks[-2]

        wait_until(same, DEADLINE_S, "nothing to be sent on", poll_s=0.3)
        return looks[-1]

    def is_detoured(self, flow: Flow) -> bool:
        """Whether an L4 node without an entry sends it to another server than its own, by what they have now."""
        source, port = flow.source
        version = 6 if ":" in source else 4
        target = maglev.lookup(self.past.generations(str(KEY[version]))[0].table, source, port).server
        assert target is not None
        return target.address != self.site.address(flow.server, version)


@contextmanager
def five(run_directory: Path) -> Iterator[Site]:
    """Four of them are in the cluster file."""
    with built(file(SERIALS), file(FOUR), run_directory) as found:
        yield found


def opened(site: Site, count: int = FLOWS) -> list[Flow]:
    """So many of each family, all of them by the first L4 node."""
    over(site, ["l4-1"])
    return [*site.open(4, count), *site.open(6, count)]


@cache
def _later(version: Literal[4, 6]) -> maglev.Table:
    """When RELAY will have been added."""
    cluster = file(SERIALS)
    return second_chance.by_file(cluster, cluster.services["echo"], version, KEY[version]).table


def will_be_detoured(site: Site, flow: Flow) -> bool:
    """Whether its slot will be another server's than its own when RELAY has been added."""
    source, port = flow.source
    version: Literal[4, 6] = 6 if ":" in source else 4
    target = maglev.lookup(_later(version), source, port).server
    return target is not None and target.address != site.address(flow.server, version)


def opened_to_be_detoured(site: Site, count: int, connect: Callable[[], Flow]) -> list[Flow]:
    """Flows until so many of them will be detoured, and at least one that will not."""
    found: list[Flow] = []
    while not count <= sum(will_be_detoured(site, flow) for flow in found) < len(found):
        found.append(connect())
    return found


def opened_to_reach_relay(count: int, connect: Callable[[], Flow]) -> list[Flow]:
    """So many flows, or more until RELAY has one of them."""
    found: list[Flow] = []
    while len(found) < count or RELAY not in {flow.server for flow in found}:
        found.append(connect())
    return found


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


def opened_by_cookie(site: Site, chances: Chances, version: int, count: int) -> None:
    """Opens so many connections, or more, without request sockets, which may come to a server that has just been
    added: each stays where it comes, and none is taken for a flow that lives elsewhere."""
    forwarded, cookies = chances.settled(), chances.counted("cookie")
    _syn_cookies(site, 2)
    flows = opened_to_reach_relay(count, partial(site.connect, version))
    assert answers(flows) == {"own": len(flows)}
    assert chances.counted("forwarded") == forwarded
    assert chances.counted("cookie") >= cookies + len(flows)
    _syn_cookies(site, 1)
    site.end(flows)


def _syn_cookies(site: Site, value: int) -> None:
    for name in SERIALS:
        site.nodes[name].run(["sysctl", "-qw", f"net.ipv4.tcp_syncookies={value}"], check=True)
