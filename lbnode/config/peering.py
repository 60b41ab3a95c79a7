"""Checks of who announces what to whom: the peers, the nodes that speak with them, guards and attributes. PURE.

Every prefix that a file can lead to stands in it, so what must not be announced is refused before anything runs.
"""

from collections.abc import Iterator
from ipaddress import ip_network

from lbnode.bgp.guard import Guard
from lbnode.config.addresses import unfit
from lbnode.config.draft import Draft, DraftNode, DraftPeer, DraftService
from lbnode.config.mistakes import listed
from lbnode.config.model import IPAddress
from lbnode.config.positions import Path
from lbnode.config.sound import Section
from lbnode.config.words import Finding, Suggestions, repeated

SINGLE = ("next_hop", "med", "local_preference", "prepend")
LISTS = {"communities": "community {} is listed twice", "large_communities": "large community {} is listed twice"}


def findings(draft: Draft, suggestions: Suggestions) -> Iterator[Finding]:
    """Everything that is wrong with how VIPs are announced."""
    yield from _guard(draft)
    for peer in draft.sessions.values():
        yield from _peer(draft, peer, suggestions)
    yield from _sections(draft)
    yield from _idle_attributes(draft)
    yield from _speechless(draft)
    yield from _shared(draft)


def _guard(draft: Draft) -> Iterator[Finding]:
    """Every VIP lies within what may be announced."""
    if draft.announceable is None:
        return
    yield from repeated(draft.announceable, "network {} is listed twice")
    if not draft.announceable_complete:
        return
    guard = Guard(network for _, network in draft.announceable)
    for service in draft.services.values():
        for path, vip in service.vips:
            if not guard.permits(ip_network(vip)):
                hint = f"add {ip_network(vip)}, or a network around it, to announceable"
                yield Finding(path, f"VIP {vip} must not be announced: it is in no network of bgp.announceable", hint)


def _peer(draft: Draft, peer: DraftPeer, suggestions: Suggestions) -> Iterator[Finding]:
    yield from _nodes_of(draft, peer, suggestions)
    local, path = peer.local_address, (*peer.path, "local_address")
    if local is not None:
        if reason := unfit(local):
            yield Finding(path, f"{local} is {reason} address, where no session can begin")
        elif peer.address is not None and local.version != peer.address.version:
            yield Finding(path, f"local_address {local} is not of the family of peer {peer.address}")
        elif not _is_one(draft, peer):
            message = (
                f"local_address {local} can only be that of one node, and several speak with BGP peer '{peer.name}'"
            )
            yield Finding(path, message, "say which under nodes, and describe the peer once more for the others")
    if {"multihop", "ttl_security"} <= peer.given:
        message = "'multihop' has no effect with 'ttl_security', which sends every packet with the highest TTL"
        yield Finding((*peer.path, "multihop"), message, "leave it out", at_key=True)
    next_hop = peer.attributes["next_hop"]
    if next_hop is not None and peer.address is not None and next_hop.version != peer.address.version:
        message = f"next_hop {next_hop} is not of the family of peer {peer.address}"
        yield Finding(peer.attributes.at("next_hop"), message, "a peer is told of VIPs of its own family alone")


def _nodes_of(draft: Draft, peer: DraftPeer, suggestions: Suggestions) -> Iterator[Finding]:
    yield from repeated(peer.nodes or (), "node '{}' is listed twice")
    announcing, certain = _announcing(draft)
    for path, name in {name: (path, name) for path, name in reversed(peer.nodes or ())}.values():
        node = draft.nodes.get(name)
        if node is None:
            if draft.nodes_known:
                yield Finding(
                    path, f"there is no node '{name}'", suggestions.hint(name, draft.nodes, "add it under nodes")
                )
        elif node.role == "l7" or (certain and node.role == "backend" and name not in announcing):
            yield Finding(path, f"node '{name}' announces nothing, so it speaks with no peer", "take it out")
        elif peer.address is not None and node.lacks(peer.address.version):
            message = f"node '{name}' has no IPv{peer.address.version} address to speak with peer {peer.address} from"
            yield Finding(path, message, "give it one, or take it out")


def _announcing(draft: Draft) -> tuple[dict[str, DraftNode], bool]:
    """The known nodes that announce something, and whether they are all."""
    found = {node.name: node for node in draft.with_role("l4")}
    certain = draft.nodes_complete
    for service in draft.services.values():
        nodes, complete = draft.announcers(service)
        found |= {node.name: node for node in nodes}
        certain = certain and complete
    return found, certain


def _is_one(draft: Draft, peer: DraftPeer) -> bool:
    if peer.nodes is not None:
        return len(peer.nodes) == 1 or not peer.complete
    announcing, certain = _announcing(draft)
    return len(announcing) <= 1 or not certain


def _sections(draft: Draft) -> Iterator[Finding]:
    """What is wrong with attributes wherever they stand."""
    vips = {vip for service in draft.services.values() for _, vip in service.vips}
    levels = [draft.attributes, *(peer.attributes for peer in draft.sessions.values())]
    levels += [service.attributes for service in draft.services.values()]
    levels += [node.attributes for node in draft.nodes.values()]
    for section in levels:
        for key, message in LISTS.items():
            yield from repeated(
                [(section.at(key, index), one) for index, one in enumerate(section[key] or ())], message
            )
        next_hop = section["next_hop"]
        if next_hop is not None:
            yield from _next_hop(section.at("next_hop"), next_hop, vips)
    for service in draft.services.values():
        yield from _foreign_next_hop(service)


def _next_hop(path: Path, next_hop: IPAddress, vips: set[IPAddress]) -> Iterator[Finding]:
    if reason := unfit(next_hop):
        yield Finding(path, f"{next_hop} is {reason} address, which cannot be a next hop")
    elif next_hop in vips:
        yield Finding(path, f"next_hop {next_hop} is a VIP", "use an address that routers can reach without BGP")


def _foreign_next_hop(service: DraftService) -> Iterator[Finding]:
    next_hop = service.attributes["next_hop"]
    versions = {vip.version for _, vip in service.vips}
    if next_hop is not None and versions and next_hop.version not in versions:
        message = f"next_hop {next_hop} has no effect: service '{service.name}' has no IPv{next_hop.version} VIP"
        yield Finding(service.attributes.at("next_hop"), message, "leave it out")


def _idle_attributes(draft: Draft) -> Iterator[Finding]:
    """Of nodes that announce nothing."""
    announcing, certain = _announcing(draft)
    for node in draft.nodes.values():
        idle = node.role == "l7" or (certain and node.role == "backend" and node.name not in announcing)
        if node.attributes.given and idle:
            message = f"'attributes' has no effect on node '{node.name}', which announces nothing"
            yield Finding(node.attributes.path, message, "leave it out", at_key=True)


def _speechless(draft: Draft) -> Iterator[Finding]:
    """A node that announces has somebody to tell, in each family; where there is no peer of a family at all, that has
    been said at the VIP."""
    if not draft.peers_complete or not all(peer.complete for peer in draft.sessions.values()):
        return
    said: set[tuple[str, int]] = set()
    for service in draft.services.values():
        for _path, vip in service.vips:
            peers = [peer for peer in draft.sessions.values() if peer.address and peer.address.version == vip.version]
            for node in draft.announcers(service)[0] if peers else ():
                mute = not any(_names(peer) is None or node.name in (_names(peer) or ()) for peer in peers)
                if mute and (node.name, vip.version) not in said and not node.lacks(vip.version):
                    said.add((node.name, vip.version))
                    message = f"node '{node.name}' is to announce VIP {vip}, but speaks with no IPv{vip.version} peer"
                    hint = f"add it to the nodes of {listed(peer.name for peer in peers)}"
                    yield Finding(node.path, message, hint, at_key=True)


def _names(peer: DraftPeer) -> set[str] | None:
    return None if peer.nodes is None else {name for _, name in peer.nodes}


def _shared(draft: Draft) -> Iterator[Finding]:
    """A VIP is announced once, for all services that have it: by the same nodes, and with the same values."""
    first: dict[IPAddress, DraftService] = {}
    for service in draft.services.values():
        for path, vip in service.vips:
            other = first.setdefault(vip, service)
            if other is service or None in (service.announce, other.announce):
                continue
            if service.announce != other.announce:
                message = f"VIP {vip} is announced for service '{other.name}' with announce: {other.announce}"
                yield Finding(path, message, "use the same for both, or another VIP", first=_place(other, vip))
            elif service.announce == "backend" and _differ(draft, service, other):
                message = (
                    f"VIP {vip} is announced by other nodes for service '{other.name}'; routers do not look at ports"
                )
                yield Finding(path, message, "give both the same nodes, or another VIP", first=_place(other, vip))
            yield from _disagreements(service.attributes, other, vip)


def _place(service: DraftService, vip: IPAddress) -> Path:
    return next(path for path, own in service.vips if own == vip)


def _differ(draft: Draft, one: DraftService, other: DraftService) -> bool:
    (some, sure), (others, certain) = draft.announcers(one), draft.announcers(other)
    return sure and certain and {node.name for node in some} != {node.name for node in others}


def _disagreements(section: Section, other: DraftService, vip: IPAddress) -> Iterator[Finding]:
    for key in SINGLE:
        own, theirs = section[key], other.attributes[key]
        if own is not None and theirs is not None and own != theirs:
            message = f"VIP {vip} is announced once, and service '{other.name}' has {key} {theirs}"
            yield Finding(section.at(key), message, "use the same for both", first=other.attributes.at(key))
