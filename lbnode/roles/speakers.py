"""Ready configurations for BIRD 2 and FRR, from the cluster file: what `lbnode render bird` and `... frr` print.

A speaker reads from the table which VIPs are announced, and from the metric of each route whether it is a first or a
second choice. Everything else is known beforehand and stands in these files: the peers, what each of them is told of
which VIP in either case, and a guard that lets nothing else out. PURE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Literal

from lbnode.bgp.exabgp import router_id
from lbnode.config.leaving import Leaving
from lbnode.config.model import Attributes, Bgp, Cluster, IPAddress, Peer, Unnumbered
from lbnode.resources import ANNOUNCE_LINK, FIRST_CHOICE, PROTOCOL, SECOND_CHOICE
from lbnode.roles.announcing import by_vip, merged
from lbnode.roles.leaving import GRACEFUL_SHUTDOWN
from lbnode.templates import Templates

TEMPLATES = {"bird": "bird.conf.j2", "frr": "frr.conf.j2"}
FAMILIES: tuple[Literal[4, 6], ...] = (4, 6)

Speaker = Literal["bird", "frr"]


@dataclass(frozen=True)
class Choice:
    """What some VIPs of one family are announced with while their routes have a metric. `next_hop` is "" for the node's
    own address in the session."""

    metric: int
    prefixes: tuple[str, ...]
    attributes: Attributes
    next_hop: str = ""


@dataclass(frozen=True)
class Session:
    """One BGP session. `address` is "" for a peer without one, at the other end of the cable in `interface`; `asn` 0
    stands for any but the own one. `choices` by the family that they are about."""

    name: str
    asn: int
    hold_time_s: int
    bfd: bool
    choices: Mapping[int, tuple[Choice, ...]] = field(default_factory=dict)
    address: str = ""
    local_address: str = ""
    interface: str = ""
    multihop: int = 0
    ttl_security: int = 0
    passive: bool = False
    add_path: bool = False
    graceful_restart_s: int = 0
    password_file: str = ""

    @property
    def keepalive_s(self) -> int:
        """A third of the hold time (RFC 4271, 4.4)."""
        return self.hold_time_s // 3


def config(speaker: Speaker, templates: Templates, cluster: Cluster, name: str) -> str:
    """The configuration of one node's speaker; "" when the node has nothing to announce by one. Raises LbnodeError when
    the template is wrong."""
    vips = by_vip(cluster, name)
    if not vips or cluster.bgp.speaker != "table":
        return ""
    bgp = cluster.bgp
    return templates.render(
        TEMPLATES[speaker],
        node=name,
        router_id=router_id(cluster.nodes[name]),
        local_asn=bgp.local_asn,
        table=bgp.table,
        device=ANNOUNCE_LINK,
        protocol=PROTOCOL,
        bfd=bgp.bfd,
        guards=guards(bgp, list(vips)),
        sessions=sessions(cluster, name),
    )


def guards(bgp: Bgp, vips: Sequence[IPAddress]) -> dict[int, tuple[str, ...]]:
    """By family, the networks whose host prefixes may be announced."""
    networks = bgp.announceable or tuple(ip_network(vip) for vip in vips)
    return {
        version: tuple(str(network) for network in networks if network.version == version)
        for version in FAMILIES
        if any(vip.version == version for vip in vips)
    }


def sessions(cluster: Cluster, name: str) -> list[Session]:
    """Every session of one node, in the order of the file; those of a family that it has no address of are left out."""
    bgp, node = cluster.bgp, cluster.nodes[name]
    found = []
    for label, peer in bgp.peers.items():
        version: Literal[4, 6] = 4 if peer.address.version == 4 else 6
        local = peer.local_address or node.address(version)
        choices = _choices(cluster, name, peer, version)
        if _speaks(peer.nodes, name) and local is not None and choices:
            found.append(
                Session(
                    label,
                    peer.asn,
                    peer.hold_time_s or bgp.hold_time_s,
                    peer.bfd,
                    {version: choices},
                    address=str(peer.address),
                    local_address=str(local),
                    multihop=peer.multihop or 0,
                    ttl_security=peer.ttl_security or 0,
                    passive=peer.passive,
                    add_path=peer.add_path,
                    graceful_restart_s=peer.graceful_restart_s or 0,
                    password_file=peer.password_file or "",
                )
            )
    for label, cable in bgp.unnumbered.items():
        if _speaks(cable.nodes, name):
            both: dict[int, tuple[Choice, ...]] = {
                version: _choices(cluster, name, cable, version) for version in FAMILIES
            }
            known = {version: choices for version, choices in both.items() if choices}
            hold_time_s = cable.hold_time_s or bgp.hold_time_s
            found.append(Session(label, cable.asn or 0, hold_time_s, cable.bfd, known, interface=cable.interface))
    return found


def _speaks(nodes: tuple[str, ...] | None, name: str) -> bool:
    return nodes is None or name in nodes


def _choices(cluster: Cluster, name: str, peer: Peer | Unnumbered, version: Literal[4, 6]) -> tuple[Choice, ...]:
    """What a peer is told of the VIPs of one family: for each metric, those that are told alike together."""
    node, vips = cluster.nodes[name], by_vip(cluster, name)
    second = _second(cluster.bgp.leaving, peer.asn == cluster.bgp.local_asn)
    found = []
    for metric, last in ((FIRST_CHOICE, ()), (SECOND_CHOICE, (second,))):
        alike: dict[Attributes, list[str]] = {}
        for vip, services in vips.items():
            if vip.version == version:
                levels = (cluster.bgp.attributes, peer.attributes, *services, node.attributes, *last)
                alike.setdefault(merged(levels, version), []).append(f"{vip}/{vip.max_prefixlen}")
        found += [
            Choice(metric, tuple(prefixes), attributes, _next_hop(attributes, peer, node.address(version)))
            for attributes, prefixes in alike.items()
        ]
    return tuple(found)


def _second(rule: Leaving, inside: bool) -> Attributes:
    """What makes a second choice of an announcement; as `lbnode.roles.leaving.second_choice` does it."""
    if rule.step == "graceful-shutdown":
        return Attributes(communities=(GRACEFUL_SHUTDOWN,))
    if rule.step == "local-preference" and inside:
        return Attributes(local_preference=rule.local_preference)
    return Attributes(med=rule.med)


def _next_hop(attributes: Attributes, peer: Peer | Unnumbered, own: IPAddress | None) -> str:
    if attributes.next_hop is not None:
        return str(attributes.next_hop)
    elsewhere = isinstance(peer, Peer) and peer.local_address not in (None, own)
    return str(own) if elsewhere and own is not None else ""
