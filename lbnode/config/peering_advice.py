"""What works in the announcing part of a cluster file but is seldom meant: warnings, which refuse nothing. PURE."""

from collections.abc import Iterator

from lbnode.config.communities import WELL_KNOWN
from lbnode.config.mistakes import listed
from lbnode.config.model import Attributes, Cluster

RESERVED_ASNS = {23456: "RFC 6793", 65535: "RFC 7300", 4294967295: "RFC 7300"}
SURPRISING = {
    WELL_KNOWN["blackhole"]: "routers that honour it drop every packet",
    WELL_KNOWN["graceful-shutdown"]: "routers that honour it use the route only when there is no other",
    WELL_KNOWN["no-advertise"]: "the peer tells nobody else",
}


def advice(cluster: Cluster) -> Iterator[str]:
    """Each warning as one sentence."""
    yield from _numbers(cluster)
    yield from _guard(cluster)
    for where, attributes in _levels(cluster):
        yield from (f"{where}: {text}" for text in _communities(attributes))
    yield from _lost(cluster)
    yield from _nobody(cluster)
    yield from _alone(cluster)


def announcers(cluster: Cluster) -> list[str]:
    """The nodes that announce something, in the order of the file."""
    return [name for name in cluster.nodes if cluster.announced_by(name)]


def _numbers(cluster: Cluster) -> Iterator[str]:
    bgp = cluster.bgp
    for where, asn in (("local_asn", bgp.local_asn), *((f"BGP peer '{n}': asn", p.asn) for n, p in bgp.peers.items())):
        if asn in RESERVED_ASNS:
            yield f"{where} {asn} is reserved ({RESERVED_ASNS[asn]}): peers may refuse it"


def _guard(cluster: Cluster) -> Iterator[str]:
    for network in cluster.bgp.announceable or ():
        if not network.prefixlen:
            yield f"announceable holds {network}, which is everything: it guards against nothing"


def _levels(cluster: Cluster) -> list[tuple[str, Attributes]]:
    found = [("bgp.attributes", cluster.bgp.attributes)]
    found += [(f"BGP peer '{name}'", peer.attributes) for name, peer in cluster.bgp.peers.items()]
    found += [(f"service '{name}'", service.attributes) for name, service in cluster.services.items()]
    return found + [(f"node '{name}'", node.attributes) for name, node in cluster.nodes.items()]


def _communities(attributes: Attributes) -> Iterator[str]:
    for community in attributes.communities:
        if community in SURPRISING:
            yield f"community {community}: {SURPRISING[community]}"
        elif community.partition(":")[0] in ("0", "65535") and community not in WELL_KNOWN.values():
            yield f"community {community} is reserved (RFC 1997): routers may give it a meaning of their own"
    for community in attributes.large_communities:
        if int(community.partition(":")[0]) in (0, *RESERVED_ASNS):
            yield f"large community {community} begins with a reserved AS number (RFC 8092)"


def _lost(cluster: Cluster) -> Iterator[str]:
    """Local preference is for the own AS; and the own AS in a path is a loop to the own AS."""
    peers = cluster.bgp.peers
    internal = {name for name, peer in peers.items() if peer.asn == cluster.bgp.local_asn}
    for key, deaf, why in (
        ("local_preference", peers.keys() - internal, "is told to iBGP peers alone"),
        ("prepend", internal, "is left out for iBGP peers, who would take the path for a loop"),
    ):
        for name in (name for name in peers if name in deaf):
            if getattr(peers[name].attributes, key):
                yield f"BGP peer '{name}': {key} {why}"
        if len(deaf) == len(peers):
            for where, attributes in _levels(cluster):
                if getattr(attributes, key) and not where.startswith("BGP peer"):
                    yield f"{where}: {key} {why}, and there is no other"


def _nobody(cluster: Cluster) -> Iterator[str]:
    names = announcers(cluster)
    for name, peer in cluster.bgp.peers.items():
        version = peer.address.version
        own = [node for node in names if peer.speaks_with(node)]
        if names and not any(cluster.nodes[node].address(version) or peer.local_address for node in own):
            yield f"BGP peer '{name}' has no node: none that announces has an IPv{version} address"


def _alone(cluster: Cluster) -> Iterator[str]:
    single = [
        name
        for name, service in cluster.services.items()
        if service.announce == "backend" and len(cluster.members(service.pool)) == 1
    ]
    if single:
        yield f"one node announces {listed(single)}: without it, that is away"
