"""What L4 nodes and backends share: the speaker's configuration, and who is told of which VIP, and how. PURE.

Which VIPs are good to announce is up to the role; a node that leaves, and a VIP that is damped, see `leaving`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network

from lbnode.bgp import exabgp
from lbnode.bgp.guard import Guard
from lbnode.config.model import Attributes, Cluster, IPAddress, Peer
from lbnode.resources import Announcement, File, Key, Row, Running
from lbnode.roles import announced_routes, leaving
from lbnode.roles.inputs import Desired, Inputs, Verdict

SINGLE = ("next_hop", "med", "local_preference", "prepend")
LISTS = ("communities", "large_communities")


@dataclass(frozen=True)
class Told:
    """One VIP for one peer, as the cluster file wants it announced."""

    vip: IPAddress
    peer: Peer
    attributes: Attributes
    next_hop: IPAddress


def speaker(inputs: Inputs) -> Desired:
    """ExaBGP's configuration, that it runs with it, and the list that the relay holds against what it is told to say;
    for another speaker, what it reads the announcements by. A configuration with a password in it is for ExaBGP's own
    group alone."""
    if inputs.cluster.bgp.speaker == "table":
        return announced_routes.device(inputs)
    cluster, paths = inputs.cluster, inputs.paths
    config = exabgp.config(inputs.templates, cluster, inputs.name, paths, passwords=inputs.passwords)
    mode, group = (0o640, exabgp.GROUP) if inputs.passwords else (0o644, "")
    return Desired(
        (
            File(str(paths.announceable), guard(cluster).text),
            File(str(paths.exabgp_config), config, mode, group, checker="exabgp"),
            Running("exabgp", exabgp.digest(config)),
        )
    )


def guard(cluster: Cluster) -> Guard:
    """What may be announced: the list of the cluster file, or its VIPs."""
    listed = cluster.bgp.announceable
    vips = (vip for service in cluster.services.values() for vip in service.vips)
    return Guard(listed if listed is not None else (ip_network(vip) for vip in vips))


def announcements(inputs: Inputs, verdicts: Mapping[IPAddress, Verdict]) -> Desired:
    """Every VIP whose verdict is good, to every peer of its family that this node speaks with."""
    permits = guard(inputs.cluster).permits
    verdicts = {vip: verdict if permits(ip_network(vip)) else _refused(vip) for vip, verdict in verdicts.items()}
    if inputs.cluster.bgp.speaker == "table":
        return announced_routes.routes(inputs, verdicts)
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    for told in told_by(inputs.cluster, inputs.name, verdicts):
        row = announcement(told, inputs.cluster.bgp.local_asn)
        if leaving.is_second_choice(inputs, str(told.vip)):
            bgp = inputs.cluster.bgp
            row = leaving.second_choice(row, bgp.leaving, told.peer.asn == bgp.local_asn)
        verdict = verdicts[told.vip]
        reasons[row.key] = verdict.reason
        if verdict.good:
            rows.append(row)
    return Desired(tuple(rows), reasons, tuple(dict.fromkeys(verdicts.values())))


def _refused(vip: IPAddress) -> Verdict:
    return Verdict("vip", str(vip), False, "withdrawn", "outside of what the cluster file lets be announced")


def told_by(cluster: Cluster, name: str, vips: Iterable[IPAddress]) -> list[Told]:
    """What a node would tell its peers of these VIPs, in the order of the VIPs, then of the peers."""
    node = cluster.nodes[name]
    peers = [peer for peer in cluster.bgp.peers.values() if peer.speaks_with(name)]
    services = by_vip(cluster, name)
    found = []
    for vip in vips:
        for peer in peers:
            if peer.address.version == vip.version:
                levels = (cluster.bgp.attributes, peer.attributes, *services.get(vip, ()), node.attributes)
                attributes = merged(levels, vip.version)
                next_hop = attributes.next_hop or node.address(vip.version)
                if next_hop is not None:
                    found.append(Told(vip, peer, attributes, next_hop))
    return found


def by_vip(cluster: Cluster, name: str) -> dict[IPAddress, list[Attributes]]:
    """The VIPs that a node announces, each with what its services say."""
    found: dict[IPAddress, list[Attributes]] = {}
    for service in cluster.announced_by(name).values():
        for vip in service.vips:
            found.setdefault(vip, []).append(service.attributes)
    return found


@lru_cache(maxsize=1024)
def merged(levels: tuple[Attributes, ...], version: int) -> Attributes:
    """Of single values the last one counts, lists add up. A next hop counts for VIPs of its own family only.

    Many VIPs share their levels: 1,000 of them cost no more than one.
    """
    values: dict[str, object] = {}
    for level in levels:
        for key in SINGLE:
            value = getattr(level, key)
            if value is not None and (key != "next_hop" or value.version == version):
                values[key] = value
    for key in LISTS:
        values[key] = tuple(dict.fromkeys(value for level in levels for value in getattr(level, key)))
    return Attributes.model_validate(values)


def announcement(told: Told, local_asn: int) -> Announcement:
    """The row. Local preference is for peers of the own AS alone (RFC 4271, 5.1.5); to those the path must not hold the
    own AS, which they would take for a loop (9.1.2)."""
    attributes, inside = told.attributes, told.peer.asn == local_asn
    return Announcement(
        prefix=f"{told.vip}/{told.vip.max_prefixlen}",
        peer=str(told.peer.address),
        next_hop=str(told.next_hop),
        med=attributes.med,
        communities=attributes.communities,
        local_preference=attributes.local_preference if inside else None,
        large_communities=attributes.large_communities,
        prepend=0 if inside else attributes.prepend or 0,
    )
