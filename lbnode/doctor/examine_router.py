"""All checks of a Linux router in front of the nodes: reads what each needs, and lets it decide."""

from collections.abc import Iterable

from lbnode.config.model import Cluster, Node, Service
from lbnode.doctor import host, router
from lbnode.doctor.finding import Finding
from lbnode.net import addresses
from lbnode.net.lookup import Match, lookup

HASH = "fib_multipath_hash"


def examine_router(cluster: Cluster) -> tuple[Finding, ...]:
    """Every finding about this host as a router of the cluster's VIPs. Raises OSError when the kernel does not tell."""
    vips = router.announcers(cluster)
    versions: list[int] = sorted({vip.version for vip in vips})
    local = {one.address for one in addresses.dump()}
    values = {version: host.setting(router.FORWARDING[version].replace(".", "/")) or 0 for version in versions}
    policies = {version: _hash(version, "policy") for version in versions}
    fields = {version: _hash(version, "fields") for version in versions}
    routed = _routed(map(str, vips))
    found = [router.itself(cluster, local), *router.forwarding(versions, values)]
    found += [*router.hashing(versions, policies, fields), *router.routes(cluster, routed)]
    if 4 in versions:
        found += _reverse_path(cluster, routed)
    return tuple(found)


def _hash(version: int, what: str) -> int:
    return host.setting(f"net/{router.FAMILIES[version]}/{HASH}_{what}") or 0


def _routed(vips: Iterable[str]) -> dict[str, router.Routed]:
    """A default route is not one for a VIP."""
    found: dict[str, Match | None] = {vip: lookup(vip) for vip in vips}
    return {
        vip: router.Routed(
            tuple(hop.gateway for hop in match.next_hops),
            tuple(dict.fromkeys(hop.device for hop in match.next_hops)),
        )
        for vip, match in found.items()
        if match is not None and match.prefix_length
    }


def _reverse_path(cluster: Cluster, routed: dict[str, router.Routed]) -> tuple[Finding, ...]:
    """IPv6 has no such filter in the kernel."""
    servers = dict.fromkeys(node for service in cluster.services.values() for node in _answering(cluster, service))
    ways = [lookup(str(node.ipv4)) for node in servers if node.ipv4 is not None]
    behind = [hop.device for way in ways if way is not None and way.prefix_length for hop in way.next_hops]
    own = {name: host.setting(f"net/ipv4/conf/{name}/rp_filter") or 0 for name in behind}
    return router.reverse_path(host.setting("net/ipv4/conf/all/rp_filter") or 0, own, routed, behind)


def _answering(cluster: Cluster, service: Service) -> Iterable[Node]:
    nodes = cluster.members(service.pool) if service.announce == "backend" else cluster.real_servers(service)
    return nodes.values()
