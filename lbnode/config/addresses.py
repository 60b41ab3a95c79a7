"""Checks of the addresses in a cluster file: fit for their use, used once, and of families that can work. PURE.

A packet for a VIP travels in a tunnel of the VIP's own family (IPIP for IPv4, IPv6 in IPv6), so every L4 node and every
real server of the service needs an address of that family; and a VIP is announced to BGP peers of its family only.
HAProxy needs just one family in common with each server of its pool.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Address

from lbnode.config.draft import FAMILIES, Draft, DraftNode, DraftService
from lbnode.config.mistakes import listed
from lbnode.config.model import IPAddress
from lbnode.config.positions import Path
from lbnode.config.words import Finding

Said = tuple[str, int]
"""A node's name or a group ("L7 node") and the IP version that it was already said to lack."""

THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122, 3.2.1.3
RESERVED = IPv4Network("240.0.0.0/4")  # RFC 1112, 4; holds the broadcast address


def findings(draft: Draft) -> Iterator[Finding]:
    """Everything that is wrong with the addresses of nodes, peers and VIPs."""
    nodes = [((*node.path, FAMILIES[v]), own) for node in draft.nodes.values() for v, own in node.own.items()]
    peers = [(path, address) for _, path, address in draft.peers]
    vips = [item for service in draft.services.values() for item in service.vips]
    for what, items in (("node's address", nodes), ("BGP peer's address", peers), ("VIP", vips)):
        for path, address in items:
            if reason := unfit(address):
                yield Finding(path, f"{address} is {reason} address, which cannot be a {what}")
    yield from _used_twice(draft)
    for node in draft.nodes.values():
        if not node.own and not node.unsure:
            yield Finding(node.path, f"node '{node.name}' has no address", "give it ipv4 or ipv6", at_key=True)
    said: set[Said] = set()
    yield from _families(draft, said)
    yield from _reach(draft, said)


def unfit(address: IPAddress) -> str:
    """Why an address cannot be routed to one machine: "a loopback", "a multicast", ...; empty when it can."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return "an IPv4-mapped"
    kinds = {
        "an unspecified": address.is_unspecified,
        "a loopback": address.is_loopback,
        "a multicast": address.is_multicast,
        "a link-local": address.is_link_local,
        "a reserved": address in THIS_NETWORK or address in RESERVED,
    }
    return next((kind for kind, holds in kinds.items() if holds), "")


def _used_twice(draft: Draft) -> Iterator[Finding]:
    """Nodes and peers share no address, and a VIP is nobody's own."""
    owner: dict[IPAddress, tuple[str, Path]] = {}
    for node in draft.nodes.values():
        for version, address in node.own.items():
            path = (*node.path, FAMILIES[version])
            if address in owner:
                yield _taken(path, address, owner)
            owner.setdefault(address, (f"the address of node '{node.name}'", path))
    for name, path, address in draft.peers:
        if address in owner:
            yield _taken(path, address, owner)
        owner.setdefault(address, (f"the address of BGP peer '{name}'", path))
    for service in draft.services.values():
        for path, address in service.vips:
            if address in owner:
                yield _taken(path, address, owner, "a VIP needs an address of its own")


def _taken(path: Path, address: IPAddress, owner: dict[IPAddress, tuple[str, Path]], hint: str = "") -> Finding:
    whose, first = owner[address]
    return Finding(path, f"{address} is already {whose}", hint, first=first)


def _families(draft: Draft, said: set[Said]) -> Iterator[Finding]:
    """Where a whole group lacks a VIP's family, one finding at the first such VIP; else one at each node that does."""
    for service in draft.services.values():
        first = {vip.version: (path, vip) for path, vip in reversed(service.vips) if not unfit(vip)}
        for version, (path, vip) in first.items():
            nobody, lacking = _without(draft, service, version)
            new = [group for group in nobody if (group, version) not in said]
            if new:
                message = f"VIP {vip} cannot work: no {' and no '.join(new)} has an IPv{version} address"
                yield Finding(path, message, "its packets keep its family all the way")
            for node in lacking:
                if (node.name, version) not in said:
                    message = f"node '{node.name}' has no IPv{version} address"
                    message += f", which VIP {vip} of service '{service.name}' needs"
                    yield Finding(node.path, message, f"add {FAMILIES[version]}", at_key=True)
            said.update((name, version) for name in [*nobody, *(node.name for node in lacking)])


def _without(draft: Draft, service: DraftService, version: int) -> tuple[list[str], list[DraftNode]]:
    """The groups of which nobody has an address of this version, and the nodes that lack one in the other groups."""
    nobody: list[str] = []
    lacking: list[DraftNode] = []
    real = "L7 node" if service.through == "l7" else f"node of pool '{service.pool}'"
    l4 = (draft.with_role("l4"), draft.nodes_complete)
    groups = {} if service.announce == "backend" else {"L4 node": l4}
    groups[real] = draft.real_servers(service)
    for group, (nodes, complete) in groups.items():
        able = [node for node in nodes if node.own or node.unsure]
        without = [node for node in able if node.lacks(version)]
        if complete and without and len(without) == len(able):
            nobody.append(group)
        else:
            lacking += without
    if draft.peers_complete and all(address.version != version for _, _, address in draft.peers):
        nobody.append("BGP peer")
    return nobody, lacking


def _reach(draft: Draft, said: set[Said]) -> Iterator[Finding]:
    """Every L7 node must reach every server of the pools it serves, or some flows meet a server that is never up."""
    l7 = [node for node in draft.with_role("l7") if node.certain]
    through = [service for service in draft.services.values() if service.through == "l7"]
    for name in dict.fromkeys(name for service in through for name in service.pools):
        members = [node for node in draft.members(name)[0] if node.certain]
        bad = _cut_off(members, l7, said)
        cut = _cut_off(l7, bad, said)
        if bad and all(len(_strangers(node, members, said)) == len(members) for node in l7):
            message = f"no L7 node can reach pool '{name}': they have no family in common"
            hint = "give the L7 nodes or the backends the other family"
            yield Finding(draft.pools[str(name)].path, message, hint, at_key=True)
        elif len(cut) < len(l7):
            yield from _lonely(cut, bad, "backend", said)
        else:
            yield from _lonely(bad, cut, "L7 node", said)


def _cut_off(nodes: list[DraftNode], others: list[DraftNode], said: set[Said]) -> list[DraftNode]:
    """Those of `nodes` that cannot reach all of `others`."""
    families = {frozenset(_known(other, said)) for other in others}
    return [node for node in nodes if not all(_known(node, said) & other for other in families)]


def _strangers(node: DraftNode, others: list[DraftNode], said: set[Said]) -> list[DraftNode]:
    own = _known(node, said)
    return [other for other in others if not own & _known(other, said)]


def _known(node: DraftNode, said: set[Said]) -> set[int]:
    """A node's families; one whose lack was reported counts as there."""
    names = (node.name, "L7 node") if node.role == "l7" else (node.name,)
    return {version for version in FAMILIES if version in node.own or any((name, version) in said for name in names)}


def _lonely(nodes: list[DraftNode], others: list[DraftNode], kind: str, said: set[Said]) -> Iterator[Finding]:
    """Each of `nodes` lacks the family of some of `others`."""
    told = [(node, 6 if 4 in node.own else 4, _strangers(node, others, said)) for node in nodes]
    for node, version, strangers in told:
        names = listed(other.name for other in strangers)
        message = f"node '{node.name}' has no IPv{version} address and cannot reach {kind} {names}"
        yield Finding(node.path, message, f"add {FAMILIES[version]}", at_key=True)
        said.add((node.name, version))
