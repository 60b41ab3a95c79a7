"""One LAN with direct return, for tests that watch flows: a client, L4 nodes, real servers, a switch between them.

    client ---+--- switch ---+--- L4 nodes   (the VIPs, IPVS, ipip and ip6tnl to the real servers)
              |              +--- s1, s2, ...   (decapsulate, serve, answer the client directly)

The nodes are what the roles want them to be; only announcements go nowhere: they are remembered.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from lbnode.config.model import Cluster
from lbnode.drivers import Observed, Result
from lbnode.lab import links
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.net.links import LinkDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.plan import Change
from lbnode.reconcile import run
from lbnode.resources import Announcement, Row
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs

VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
CLIENT = ("192.0.2.9/24", "2001:db8::9/64")
LAN, SWITCH = "lan", "switch"


class Announcer:
    """In the place of a BGP speaker: what is announced is remembered. Tables of it are changed as live ones."""

    kinds: tuple[type[Row], ...] = (Announcement,)

    def __init__(self) -> None:
        self.rows: set[Row] = set()

    @property
    def vips(self) -> frozenset[str]:
        return frozenset(row.prefix.partition("/")[0] for row in self.rows if isinstance(row, Announcement))

    def observe(self, wanted: Sequence[Row]) -> Observed:
        return Observed(tuple(self.rows))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        for change in changes:
            self.rows.discard(change.old)
            if change.new is not None:
                self.rows.add(change.new)
        return [Result(change) for change in changes]


def only(whole: Desired, drivers: Iterable[Any]) -> Desired:
    """The rows that these drivers know: without files and programs."""
    kinds: tuple[type[Row], ...] = tuple(kind for driver in drivers for kind in driver.kinds)
    return Desired(tuple(row for row in whole.rows if isinstance(row, kinds)), whole.reasons, removal_s=whole.removal_s)


def joined(stack: ExitStack, machines: Cluster) -> dict[str, Node]:
    """The nodes of a cluster file, a client and the switch, with addresses; until the stack is closed."""
    names = ("client", *machines.nodes, SWITCH)
    nodes = {name: stack.enter_context(Node(name, private=False)) for name in names}
    hosts = {name: (f"{node.ipv4}/24", f"{node.ipv6}/64") for name, node in machines.nodes.items()}
    hosts["client"] = CLIENT
    links.lan(nodes[SWITCH], LAN, [Port(nodes[name], "eth0", hosts[name]) for name in names[:-1]])
    return nodes


def become_server(node: Node, name: str, machines: Cluster) -> None:
    """A real server that takes packets out of the tunnels and answers from the VIPs."""
    drivers: list[Any] = [SysctlDriver(), LinkDriver()]
    wanted = only(desired("backend", Inputs(machines, name)), drivers)
    assert node.call(lambda: run(wanted, drivers)).errors == []
