"""How long until a router's kernel knows? From what happens on a node that announces to the route in the router.

lbnode, by ExaBGP and by BIRD with BFD, and ExaBGP's own health check, this at two intervals, on one LAN in one boot;
each round everything happens once to each. A side goes its own way in a thread of its own, for the slowest takes
minutes where the others take seconds.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import router
from bench.announcers import (
    ASN,
    HOLD_TIME_S,
    PEER_ASN,
    ROUTER,
    Healthcheck,
    Ours,
    OursByTable,
    Place,
    Side,
    start_constant,
)
from bench.figure import OURS, Figure
from lbnode.lab import links, programs
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.lab.supervisor import Program, Supervisor

DEADLINE_S = 120.0
LAN = "lan"
VIP, GOAL_MS, BFD_GOAL_MS = "198.51.100.1", 50, 1000
BY_TABLE = "lbnode, BIRD, BFD"
SIDES = {OURS: ("192.0.2.11", VIP), "healthcheck 1 s": ("192.0.2.12", "198.51.100.2")}
SIDES |= {"healthcheck 10 s": ("192.0.2.13", "198.51.100.3"), BY_TABLE: ("192.0.2.14", "198.51.100.4")}
OTHER = "192.0.2.20"
EVENTS = {
    "disable": "`disable` file -> withdrawn (lbnode: `step: none`)",
    "enable": "`disable` file removed -> announced",
    "fail": "the server dies -> withdrawn (lbnode: check every 1 s, twice)",
    "recover": "the server is back -> announced",
    "decider": "agent or health check killed and started again: without the route for",
    "speaker": "ExaBGP (BIRD) killed and started again: without the route for",
    "cut": f"the node is cut off, hold time {HOLD_TIME_S} s -> withdrawn",
    "mend": "the node is back -> announced",
    "alone": "`disable` file -> withdrawn, while the others rest",
    "alone back": "`disable` file removed -> announced, while the others rest",
    "step": "`disable` file -> a second choice, which routers do not use any more",
    "undo": "`disable` file removed within the step -> used again",
}


@dataclass(frozen=True)
class Site:
    """The network and what is measured on it: milliseconds by event and side."""

    fabric: Node
    table: router.Table
    places: dict[str, Place]
    took: dict[tuple[str, str], list[float]]

    def timed(self, event: str, name: str, work: Callable[[], None], used: bool) -> None:
        """Does something to a side, and waits until the router uses its route, or does not."""
        place, began = self.places[name], time.monotonic()
        work()
        seconds = self.table.wait(place.vip, place.own, used, began, DEADLINE_S)
        self.took[event, name].append(1000 * seconds)

    def missed(self, event: str, name: str, work: Callable[[], None]) -> None:
        """Does something to a side, and adds up for how long the route was away until all is as before."""
        place, began = self.places[name], time.monotonic()
        work()
        self.table.wait(place.vip, place.own, True, began, DEADLINE_S)
        self.took[event, name].append(1000 * self.table.missing_s(place.vip, place.own, began))


def measure(rounds: int, log: Path) -> list[Figure]:
    with _site(log) as (site, sides):
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=_guarded, args=(errors, lambda n=n, s=s: _rounds(site, n, s, rounds)))
            for n, s in sides.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        _alone(site, sides, rounds)
        _step(site, sides[OURS], rounds)
    return list(_figures(site.took))


def _guarded(errors: list[BaseException], work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - told in the main thread
        errors.append(error)


def _rounds(site: Site, name: str, side: Side, rounds: int) -> None:
    for _ in range(rounds):
        site.timed("disable", name, side.disable, used=False)
        site.timed("enable", name, side.enable, used=True)
        site.timed("fail", name, side.fail, used=False)
        site.timed("recover", name, side.recover, used=True)
        site.missed("decider", name, side.kill_decider)
        site.missed("speaker", name, side.kill_speaker)
        site.timed("cut", name, lambda: _cable(site, name, up=False), used=False)
        site.timed("mend", name, lambda: _cable(site, name, up=True), used=True)


def _alone(site: Site, sides: dict[str, Side], rounds: int) -> None:
    """lbnode's two again, one after the other: the processor is theirs."""
    for name in (OURS, BY_TABLE):
        for _ in range(rounds):
            site.timed("alone", name, sides[name].disable, used=False)
            site.timed("alone back", name, sides[name].enable, used=True)


def _step(site: Site, side: Side, rounds: int) -> None:
    """lbnode again, as it comes: first a second choice."""
    if isinstance(side, Ours):
        side.configure("graceful-shutdown")
    for _ in range(rounds):
        site.timed("step", OURS, side.disable, used=False)
        site.timed("undo", OURS, side.enable, used=True)


def _cable(site: Site, name: str, up: bool) -> None:
    """Pulls the cable between a node and the switch; the router's own stays."""
    number = 1 + list(SIDES).index(name)
    links.state(site.fabric, links.end_in_bridge(LAN, number), up)


def _figures(took: dict[tuple[str, str], list[float]]) -> Iterator[Figure]:
    for event, text in EVENTS.items():
        values = {name: took[event, name] for name in SIDES if took.get((event, name))}
        yield Figure(f"router's kernel: {text}", "ms", values, worst=True)
    for event, text in (("alone", "withdrawn, the others at rest"), ("step", "a second choice")):
        yield Figure(f"router's kernel: lbnode, file -> {text}", "ms", {OURS: took[event, OURS]}, GOAL_MS, worst=True)
    by_bfd = {OURS: took["cut", BY_TABLE]}
    yield Figure(
        "router's kernel: lbnode by BIRD with BFD, cut off -> withdrawn", "ms", by_bfd, BFD_GOAL_MS, worst=True
    )


def _side(name: str, place: Place, supervisor: Supervisor) -> Side:
    if name == BY_TABLE:
        return OursByTable(place, supervisor)
    return Ours(place, supervisor) if name == OURS else Healthcheck(place, supervisor, int(name.split()[1]))


@contextmanager
def _site(log: Path) -> Iterator[tuple[Site, dict[str, Side]]]:
    """Everything up, and every VIP in the router's kernel."""
    programs.preload()
    logs = log.with_name("reaction")
    names = ["ours", "hc1", "hc10", "table"]
    with Node("switch") as fabric, Node("router") as far, Node("other") as other, Supervisor(logs) as supervisor:
        nodes = [Node(name) for name in names]
        try:
            places = {
                name: Place(name, node, own, vip) for (name, (own, vip)), node in zip(SIDES.items(), nodes, strict=True)
            }
            ports = [Port(far, "eth0", (f"{ROUTER}/24",))]
            ports += [Port(place.node, "eth0", (f"{place.own}/24",)) for place in places.values()]
            links.lan(fabric, LAN, [*ports, Port(other, "eth0", (f"{OTHER}/24",))])
            peers = {node.name: place.own for node, place in zip(nodes, places.values(), strict=True)}
            peers["other"] = OTHER
            far.write(router.CONF, router.config(ROUTER, PEER_ASN, peers, ASN, HOLD_TIME_S, bfd="table"))
            supervisor.add(Program(far, "bird", router.command()))
            with router.Table(far) as table:
                start_constant(Place("other", other, OTHER, VIP), supervisor)
                sides: dict[str, Side] = {}
                for name, place in places.items():
                    sides[name] = _side(name, place, supervisor)
                    sides[name].start()
                for place in (*places.values(), Place("other", other, OTHER, VIP)):
                    table.wait(place.vip, place.own, True, 0, DEADLINE_S)
                yield Site(fabric, table, places, defaultdict(list)), sides
        finally:
            supervisor.close()
            for node in nodes:
                node.close()
