"""Cables, switches, addresses and routes between the nodes of a lab.

    connect(Port(r1, "l4a", ("192.0.2.1/31",)), Port(l4a, "eth0", ("192.0.2.0/31",)))  # a cable: a veth pair
    lan(fabric, "servers", [Port(l4a, "eth1", ...), Port(l7a, "eth0", ...)])           # a switch: a bridge
    route(r1, Route("203.0.113.1/32", ("192.0.2.0", "192.0.2.2")))                     # several next hops: ECMP

Bridges live in a node of their own, so that no lab ever makes an interface outside its nodes. IPv6 addresses skip
duplicate address detection: they can be used, and bound, at once.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface, ip_network
from itertools import count
from typing import Any, TypeVar

from pyroute2 import IPRoute

from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

T = TypeVar("T")

NAME_MAX = 15  # IFNAMSIZ - 1
IFA_F_NODAD = 0x02

# For one end of each pair. The kernel reports a change of carrier at once only where an interface's index differs from
# its peer's (net/core/link_watch.c, linkwatch_urgent_event()), else up to a second later; IPv6 waits for that report.
_indexes = count(1000)


@dataclass(frozen=True)
class Port:
    """One end of a cable: an interface of a node, and its addresses with prefix length."""

    node: Node
    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """A route to a prefix ("default" is spelled 0.0.0.0/0 or ::/0), over one or more next hops or a device."""

    to: str
    via: tuple[str, ...] = ()
    device: str | None = None
    table: int = 254
    source: str | None = None


def in_node(node: Node, work: Callable[[IPRoute], T]) -> T:
    """Runs `work` with a netlink socket that belongs to the node."""

    def inside() -> T:
        with IPRoute() as netlink:
            return work(netlink)

    return node.call(inside)


def create(node: Node, name: str, kind: str, **options: Any) -> None:
    """Creates a link without further ado; `options` are pyroute2's. Raises NetlinkError."""
    in_node(node, lambda netlink: netlink.link("add", ifname=checked(name), kind=kind, **options))


def connect(left: Port, right: Port) -> None:
    """Joins two nodes by a veth pair, both ends up and addressed."""

    def lay(netlink: IPRoute) -> None:
        _add_veth(netlink, left.name, right)
        _bring_up(netlink, left)

    in_node(left.node, lay)
    in_node(right.node, lambda netlink: _bring_up(netlink, right))


def lan(fabric: Node, name: str, ports: Iterable[Port]) -> None:
    """Joins nodes by a switch: a bridge called `name` in `fabric`, one veth pair to each port."""
    members = list(ports)

    def build(netlink: IPRoute) -> None:
        bridge = next(_indexes)
        netlink.link("add", ifname=checked(name), kind="bridge", index=bridge)
        netlink.link("set", index=bridge, state="up")
        for number, port in enumerate(members):
            inner = _add_veth(netlink, end_in_bridge(name, number), port)
            netlink.link("set", index=inner, master=bridge, state="up")

    in_node(fabric, build)
    for port in members:
        in_node(port.node, partial(_bring_up, port=port))


def end_in_bridge(lan_name: str, number: int) -> str:
    """The bridge's end of the cable to the LAN's port of this number."""
    return f"{lan_name[:11]}.{number}"


def address(node: Node, device: str, *addresses: str) -> None:
    """Adds addresses to an interface that is there already, lo for instance."""
    in_node(node, lambda netlink: _add_addresses(netlink, index_of(netlink, device), addresses))


def route(node: Node, *routes: Route) -> None:
    """Adds or replaces routes, both families."""

    def add(netlink: IPRoute) -> None:
        for row in routes:
            netlink.route("replace", **request(row, lambda name: index_of(netlink, name)))

    in_node(node, add)


def state(node: Node, device: str, up: bool) -> None:
    """Takes an interface down (its peer loses carrier: a cable pulled) or up."""
    word = "up" if up else "down"
    in_node(node, lambda netlink: netlink.link("set", index=index_of(netlink, device), state=word))


def checked(name: str) -> str:
    """An interface name the kernel takes. Raises LabError."""
    if not name or len(name) > NAME_MAX or "/" in name or any(letter.isspace() for letter in name):
        raise LabError(f"cannot name an interface {name!r}: 1 to {NAME_MAX} characters, no blanks or slashes")
    return name


def _add_veth(netlink: IPRoute, name: str, port: Port) -> int:
    """A veth pair from here to a port of another node; returns the index of this end."""
    index = next(_indexes)
    peer = {"ifname": checked(port.name), "net_ns_fd": port.node.netns()}
    netlink.link("add", ifname=checked(name), index=index, kind="veth", peer=peer)
    return index


def _bring_up(netlink: IPRoute, port: Port) -> None:
    index = index_of(netlink, port.name)
    netlink.link("set", index=index, state="up")
    _add_addresses(netlink, index, port.addresses)


def _add_addresses(netlink: IPRoute, index: int, addresses: Sequence[str]) -> None:
    for text in addresses:
        wanted = ip_interface(text)
        flags = {"flags": IFA_F_NODAD} if wanted.version == 6 else {}
        netlink.addr("add", index=index, address=str(wanted.ip), prefixlen=wanted.network.prefixlen, **flags)


def index_of(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise LabError(f"cannot find interface {name}")
    return int(found[0])


def request(row: Route, index: Callable[[str], int]) -> dict[str, Any]:
    """A route as pyroute2's keywords."""
    network = ip_network(row.to)
    wanted: dict[str, Any] = {
        "family": socket.AF_INET if network.version == 4 else socket.AF_INET6,
        "dst": str(network),
        "table": row.table,
    }
    if row.source is not None:
        wanted["prefsrc"] = row.source
    if row.device is not None:
        wanted["oif"] = index(row.device)
    if len(row.via) == 1:
        wanted["gateway"] = row.via[0]
    elif row.via:
        wanted["multipath"] = [{"gateway": hop} for hop in row.via]
    return wanted
