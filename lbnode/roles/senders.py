"""From whom real servers take packets out of a tunnel: the cluster's L4 nodes, and real servers that give a flow its
second chance; nobody else. PURE.

The tunnel devices have no remote end, so that whoever can send a packet to a real server could send one to a VIP past
every L4 node, with any source he likes. Where the kernel has nf_tables, the outer source must be one of theirs.
"""

from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Literal

from lbnode.config.model import Cluster, Node, Service
from lbnode.resources import TunnelGuard

Version = Literal[4, 6]
GRE, UDP = 47, 17
PLAIN: dict[Version, int] = {4: 4, 6: 41}
FAMILIES: tuple[Version, ...] = (4, 6)


def rows(
    cluster: Cluster, node: Node, served: Iterable[Service], relays: Collection[str] = ()
) -> tuple[TunnelGuard, ...]:
    """The guards of one real server, for the tunnels in which these services' packets come. `relays`: addresses of the
    real servers that may send flows on to it, in plain tunnels."""
    if not cluster.tunnel.only_from_l4:
        return ()
    found: dict[TunnelGuard, None] = {}
    for service in served:
        for version in FAMILIES:
            if service.ipvs.forwarding == "tunnel" and any(vip.version == version for vip in service.vips):
                found.update(dict.fromkeys(_guards(cluster, node, service, version, relays)))
    return tuple(found)


def unguarded(cluster: Cluster, node: Node, served: Iterable[Service]) -> str:
    """What to say of a node whose kernel has no nf_tables; empty when it needs none."""
    return "; takes tunnelled packets from anybody (no nf_tables)" if rows(cluster, node, served) else ""


def _guards(
    cluster: Cluster, node: Node, service: Service, version: Version, relays: Collection[str]
) -> list[TunnelGuard]:
    sources = senders(cluster, version)
    if node.address(version) is None or not sources:
        return []
    protocol, port = PLAIN[version], 0
    if service.ipvs.tunnel == "gre":
        protocol = GRE
    elif service.ipvs.tunnel == "gue":
        protocol, port = UDP, service.ipvs.tunnel_port
    else:
        found = {ip_address(one) for one in (*sources, *relays)}
        sources = tuple(str(one) for one in sorted((one for one in found if one.version == version), key=int))
    return [TunnelGuard(version, protocol, port, sources)]


def senders(cluster: Cluster, version: Version) -> tuple[str, ...]:
    """The addresses that tunnelled packets may come from."""
    own = (node.address(version) for node in cluster.with_role("l4").values())
    return tuple(str(address) for address in sorted((one for one in own if one is not None), key=int))
