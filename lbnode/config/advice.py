"""What works in a cluster file but is seldom meant: warnings, which refuse nothing. PURE.

Few, and each says what will happen. `lbnode check` prints them; `plan`, `apply` and the agent do not repeat them.
"""

from collections.abc import Iterator, Mapping

from lbnode.config import peering_advice
from lbnode.config.mistakes import listed
from lbnode.config.model import Cluster, Node, Service
from lbnode.maglev import MH_FALLBACK, MH_PORT, SLOTS, turns
from lbnode.roles.next_hops import MEND, too_many

HAPROXY_IDLE_S = 3600
"""The longest that HAProxy keeps an idle flow open: `timeout tunnel` in templates/haproxy.cfg.j2."""
UNEVEN = 0.05
"""By how much a share may stray from the weight's before it is worth a word."""


def advice(cluster: Cluster) -> tuple[str, ...]:
    """Each warning once, as one sentence: what concerns the cluster first, then services in the order of the file."""
    found = dict.fromkeys(_alone(cluster))
    found |= dict.fromkeys(peering_advice.advice(cluster))
    found |= dict.fromkeys(_edge(cluster))
    found |= dict.fromkeys(_idle(cluster))
    found |= dict.fromkeys(_shares(cluster))
    found |= dict.fromkeys(_leaving(cluster))
    for name, service in cluster.services.items():
        found |= dict.fromkeys(f"service '{name}': {text}" for text in _service(cluster, service))
    return tuple(found)


def slots(weights: list[int]) -> list[int]:
    """How many slots of a Maglev table servers of these weights hold, oldest first. Their addresses do not matter:
    all take their turns in whole rounds, and the newest once more until the table is full (see `maglev.turns`)."""
    taken = turns(weights)
    rounds, rest = divmod(SLOTS, sum(taken) or 1)
    held = [rounds * turn for turn in taken]
    for index in reversed(range(len(taken))):
        more = min(taken[index], rest)
        held[index] += more
        rest -= more
    return held


def _alone(cluster: Cluster) -> Iterator[str]:
    """What nothing stands in for."""
    if cluster.balanced and len(cluster.with_role("l4")) == 1:
        yield f"there is one L4 node, '{next(iter(cluster.with_role('l4')))}': without it, every service is away"
    for version in sorted({vip.version for service in cluster.services.values() for vip in service.vips}):
        peers = [name for name, peer in cluster.bgp.peers.items() if peer.address.version == version]
        if len(peers) == 1:
            yield f"there is one BGP peer for IPv{version}, '{peers[0]}': without it, those VIPs are away"


def _leaving(cluster: Cluster) -> Iterator[str]:
    """A second choice that routers would not take for one."""
    bgp = cluster.bgp
    levels = [bgp.attributes, *(peer.attributes for peer in bgp.peers.values())]
    levels += [service.attributes for service in cluster.services.values()]
    levels += [node.attributes for node in cluster.nodes.values()]
    meds = [level.med for level in levels if level.med is not None]
    preferences = [level.local_preference for level in levels]
    lowest = min((found for found in preferences if found is not None), default=100)
    if bgp.leaving.step == "med" and max(meds, default=0) >= bgp.leaving.med:
        yield (
            f"bgp.leaving.med is {bgp.leaving.med}, and a MED of {max(meds)} is announced: nodes that leave would not "
            "be the last choice"
        )
    if bgp.leaving.step == "local-preference" and lowest <= bgp.leaving.local_preference:
        yield (
            f"bgp.leaving.local_preference is {bgp.leaving.local_preference}, and one of {lowest} is announced: nodes "
            "that leave would not be the last choice"
        )


def _edge(cluster: Cluster) -> Iterator[str]:
    """What routers make of the announcements."""
    if problem := too_many(cluster):
        yield f"{problem}: the others get nothing ({MEND})"
    for name, peer in cluster.bgp.peers.items():
        if peer.graceful_restart_s:
            yield (
                f"BGP peer '{name}' keeps the routes of a broken session for {peer.graceful_restart_s} s "
                "(graceful_restart_s): so long packets go to a node that has died"
            )


def _idle(cluster: Cluster) -> Iterator[str]:
    """IPVS must not forget a flow that HAProxy still holds open."""
    limit = cluster.ipvs.tcp_timeout_s
    if limit < HAPROXY_IDLE_S and any(service.through == "l7" for service in cluster.services.values()):
        yield (
            f"ipvs.tcp_timeout_s is {limit}, and HAProxy holds idle flows open for {HAPROXY_IDLE_S} s (timeout tunnel "
            "in haproxy.cfg.j2): those of a drained L7 node are reset when they speak again"
        )


def _shares(cluster: Cluster) -> Iterator[str]:
    """Services of the same real servers are told of together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    servers_of: dict[tuple[str, ...], Mapping[str, Node]] = {}
    for name, service in cluster.balanced.items():
        servers = cluster.real_servers(service)
        if service.ipvs.scheduler == "mh" and servers:
            alike.setdefault(tuple(servers), []).append(name)
            servers_of[tuple(servers)] = servers
    for names, services in alike.items():
        if text := _uneven(servers_of[names]):
            yield f"service{'s' if len(services) > 1 else ''} {listed(services)}: {text}"


def _uneven(servers: Mapping[str, Node]) -> str:
    """The server whose share strays most from its weight's; empty when none strays far."""
    weights = [node.weight for node in servers.values()]
    meant = [SLOTS * weight / sum(weights) for weight in weights]
    strays = {name: held / fair for name, held, fair in zip(servers, slots(weights), meant, strict=True)}
    name = max(strays, key=lambda one: abs(strays[one] - 1))
    if abs(strays[name] - 1) <= UNEVEN:
        return ""
    if len(set(weights)) == 1:
        why = f"{len(servers)} real servers for {SLOTS} slots"
    else:
        why = "the kernel keeps six bits of weights: use some with a large common divisor, such as 50 and 100"
    return f"shares stray from the weights: '{name}' gets {strays[name]:.2f} times its own ({why})"


def _service(cluster: Cluster, service: Service) -> Iterator[str]:
    servers = len(cluster.real_servers(service))
    several = len(cluster.with_role("l4")) > 1
    if service.announce == "backend":
        return
    if servers > 1 and service.quorum == servers and service.below_quorum == "withdraw":
        yield f"quorum {service.quorum} is all of its real servers: one that is down withdraws its VIPs"
    ipvs = service.ipvs
    if ipvs.scheduler != "mh":
        if several:
            yield f"with scheduler {ipvs.scheduler}, flows that ECMP moves to another L4 node break; only mh keeps them"
        return
    if several and ipvs.max_connections:
        yield "each L4 node counts max_connections by itself, and then their tables differ"
    if ipvs.flags is not None and MH_PORT not in ipvs.flags:
        yield f"without {MH_PORT}, all flows of a client's address go to one real server"
    if ipvs.flags is not None and MH_FALLBACK not in ipvs.flags:
        yield f"without {MH_FALLBACK}, new flows are dropped that belong to a real server at weight 0"
