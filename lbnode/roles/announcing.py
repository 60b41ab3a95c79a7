"""What L4 nodes and backends share: the speaker's configuration, and who is told of which VIP, and how. PURE.

Which VIPs are good to announce is up to the role; a node that leaves, and a VIP that is damped, see `leaving`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from lbnode.bgp import exabgp
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
    """ExaBGP's configuration, and that it runs with it; for another speaker, what it reads the announcements by."""
    if inputs.cluster.bgp.speaker == "table":
        return announced_routes.device(inputs)
    config = exabgp.config(inputs.templates, inputs.cluster, inputs.name, inputs.paths)
    file = File(str(inputs.paths.exabgp_config), config, checker="exabgp")
    return Desired((file, Running("exabgp", exabgp.digest(config))))


def announcements(inputs: Inputs, verdicts: Mapping[IPAddress, Verdict]) -> Desired:
    """Every VIP whose verdict is good, to every peer of its family that this node speaks with."""
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


def told_by(cluster: Cluster, name: str, vips: Iterable[IPAddress]) -> list[Told]:
    """What a node would tell its peers of these VIPs, in the order of the VIPs, then of the peers."""
    node = cluster.nodes[name]
    peers = [peer for peer in cluster.bgp.peers.values() if peer.nodes is None or name in peer.nodes]
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
    """The row. Local preference is for peers of the own AS alone (RFC 4271, 5.1.5)."""
    attributes = told.attributes
    return Announcement(
        prefix=f"{told.vip}/{told.vip.max_prefixlen}",
        peer=str(told.peer.address),
        next_hop=str(told.next_hop),
        med=attributes.med,
        communities=attributes.communities,
        local_preference=attributes.local_preference if told.peer.asn == local_asn else None,
        large_communities=attributes.large_communities,
        prepend=attributes.prepend or 0,
    )
