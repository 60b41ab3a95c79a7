"""What a backend that announces its services itself asks of itself: each of their VIPs, at home. PURE.

The question goes where a client's packet would end, to the VIP on the node's own device, so a server that does not
listen there is not announced. Nothing else stands between: no tunnel, no mark that IPVS knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lbnode.config.model import Cluster, IPAddress, Service
from lbnode.health.state import Probe
from lbnode.roles.prober import service_probe


@dataclass(frozen=True)
class OwnCheck:
    """One service at one of its VIPs."""

    name: str
    vip: IPAddress
    probe: Probe


def own_checks(cluster: Cluster, node_name: str) -> tuple[OwnCheck, ...]:
    """Of all services that this backend announces, in the order of the file."""
    return tuple(_checks(cluster, cluster.announced_by(node_name)))


def _checks(cluster: Cluster, services: dict[str, Service]) -> Iterator[OwnCheck]:
    for name, service in services.items():
        wanted = service_probe(service)
        if wanted is None:
            pool = cluster.pools[service.pool]
            wanted = Probe(pool.check.type, "", pool.port, pool.check.path if pool.check.type == "http" else "")
        for vip in service.vips:
            yield OwnCheck(name, vip, replace(wanted, address=str(vip)))
