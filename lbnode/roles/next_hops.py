"""How many next hops a router gets for a VIP: the nodes whose announcements are as good as the best. PURE.

A router spreads packets over equal routes only (RFC 4271, 9.1.2.2): the highest local preference, the shortest path,
the lowest MED. It holds so many of them for one prefix, and leaves the rest out without a word.
"""

from collections.abc import Mapping

from lbnode.config.model import Cluster, IPAddress
from lbnode.roles.announcing import Told, told_by

USUAL, LARGE = 16, 64
"""What routers hold unless told otherwise (BIRD's `merge paths`, many others), and what many can hold at most."""
PREFERENCE = 100
"""Local preference where none is told (RFC 4271, 5.1.5 leaves it to the router; all of them take this)."""


def next_hops(cluster: Cluster) -> dict[tuple[IPAddress, str], tuple[str, ...]]:
    """(VIP, name of a peer) -> the nodes that it sends the VIP's packets to when all announce, in the file's order."""
    names = {peer.address: name for name, peer in cluster.bgp.peers.items()}
    found: dict[tuple[IPAddress, str], dict[str, tuple[int, int, int]]] = {}
    for node in cluster.nodes:
        services = cluster.announced_by(node).values()
        for told in told_by(cluster, node, dict.fromkeys(vip for service in services for vip in service.vips)):
            found.setdefault((told.vip, names[told.peer.address]), {})[node] = _rank(told, cluster.bgp.local_asn)
    return {key: _best(ranks) for key, ranks in found.items()}


def _rank(told: Told, local_asn: int) -> tuple[int, int, int]:
    """Better ones are lower."""
    attributes = told.attributes
    own = told.peer.asn == local_asn and attributes.local_preference is not None
    preference = attributes.local_preference if own else PREFERENCE
    return -(preference or 0), attributes.prepend or 0, attributes.med or 0


def _best(ranks: Mapping[str, tuple[int, int, int]]) -> tuple[str, ...]:
    best = min(ranks.values())
    return tuple(node for node, rank in ranks.items() if rank == best)


def too_many(cluster: Cluster) -> str:
    """What is wrong with the largest number of them, in words; "" when routers can hold it."""
    found = next_hops(cluster)
    if not found:
        return ""
    (vip, peer), nodes = max(found.items(), key=lambda item: len(item[1]))
    seen = f"{len(nodes)} nodes announce {vip} to BGP peer '{peer}'"
    limit = cluster.bgp.ecmp_limit
    if limit is not None:
        return f"{seen}, which holds {limit} next hops (bgp.ecmp_limit)" if len(nodes) > limit else ""
    least = next((number for number in (LARGE, USUAL) if len(nodes) > number), 0)
    often = "can hold no more than" if least == LARGE else "hold, unless told otherwise, no more than"
    return f"{seen}, and many routers {often} {least} next hops" if least else ""


MEND = "raise it on the routers (BIRD: `merge paths on limit N`; FRR: `maximum-paths N`) and say N as bgp.ecmp_limit"
