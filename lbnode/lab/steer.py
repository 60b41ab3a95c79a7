"""Moving flows from one L4 node to another: routes of our own on the routers, before those that BGP brings.

Nothing is said to the L4 nodes, and no session ends: to them it is as if a router elsewhere had made another choice. So
it is the same for every way to build tier 2, and flows that meet another node show whether all nodes agree.
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from lbnode.lab import links
from lbnode.lab.build import Lab

TABLE = 252
PRIORITY = 100
FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6


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
            for family in FAMILIES.values():
                links.in_node(
                    self._lab.nodes[router],
                    lambda netlink, family=family: netlink.rule(word, family=family, table=TABLE, priority=PRIORITY),  # type: ignore[misc]
                )
        self._on = word == "add"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.back()
