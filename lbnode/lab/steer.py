"""Moving flows from one L4 node to another: routes of our own on the routers, before those that BGP brings.

Nothing is said to the L4 nodes, and no session ends: to them it is as if a router elsewhere had made another choice. So
it is the same for every way to build tier 2, and flows that meet another node show whether all nodes agree.
"""

import socket
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from pyroute2 import IPRoute

from lbnode.lab import links
from lbnode.lab.build import Lab

TABLE = 252
PRIORITY = 100


class Steer:
    """While steering, the routers send all VIPs over the L4 nodes last named; a context manager that ends with BGP's
    routes in force."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._on = False

    def over(self, names: Iterable[str]) -> None:
        """All routers send all VIPs over these L4 nodes, each hashing for itself."""
        gateways = [address for name in sorted(names) for address in self._addresses(name)]
        for router in self._lab.topology.routers:
            wanted = []
            for prefix in self._lab.topology.vips:
                via = tuple(hop for hop in gateways if (":" in hop) == (prefix.version == 6))
                wanted.append(links.Route(str(prefix), via, table=TABLE))
            links.route(self._lab.nodes[router], *wanted)
        if not self._on:
            self._rules("add")

    def back(self) -> None:
        """As BGP says."""
        if self._on:
            self._rules("del")

    def _addresses(self, name: str) -> Sequence[str]:
        machine = self._lab.topology.machines[name]
        return [*machine.addresses(4), *machine.addresses(6)]

    def _rules(self, word: str) -> None:
        for router in self._lab.topology.routers:
            links.in_node(self._lab.nodes[router], partial(_rules, word=word))
        self._on = word == "add"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.back()


def _rules(netlink: IPRoute, word: str) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        netlink.rule(word, family=family, table=TABLE, priority=PRIORITY)
