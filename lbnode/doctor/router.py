"""A Linux router in front of the nodes: whether it forwards, how it spreads flows, and whom it sends VIPs to. PURE.

It runs BIRD or FRR and has no agent; `lbnode doctor --role router` looks at its kernel, the cluster file beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lbnode.config.model import Cluster, IPAddress
from lbnode.doctor.finding import Finding, persistent
from lbnode.roles.next_hops import next_hops

FAMILIES = {4: "ipv4", 6: "ipv6"}
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
SOURCE, SOURCE_PORT = 0x1, 0x10
"""Bits of fib_multipath_hash_fields (Documentation/networking/ip-sysctl.rst)."""
POLICY = {
    0: "0, by addresses alone: all flows between a client and a VIP go to one node",
    2: "2, by the addresses inside of tunnels: clients' packets have none, so all flows of a client go to one node",
}


@dataclass(frozen=True)
class Routed:
    """How the kernel routes a VIP: next hops, as addresses ("" for one without), and the devices of them."""

    gateways: tuple[str, ...]
    devices: tuple[str, ...]


def itself(cluster: Cluster, local: set[str]) -> Finding:
    """Which of the cluster file's peers this router is."""
    own = [name for name, peer in cluster.bgp.peers.items() if str(peer.address) in local]
    if own:
        return Finding("router", "ok", f"it is {', '.join(own)} of bgp.peers")
    return Finding("router", "ok", "none of bgp.peers: it hears of VIPs from others, such as route reflectors")


def forwarding(versions: Iterable[int], values: Mapping[int, int]) -> tuple[Finding, ...]:
    """`values` by family, as the kernel has them."""
    found = []
    for version in versions:
        name, value = FORWARDING[version], values.get(version, 0)
        if value:
            found.append(Finding(f"forwarding {FAMILIES[version]}", "ok", f"{name} {value}"))
        else:
            seen = f"{name} 0: no IPv{version} packet is passed on"
            found.append(Finding(f"forwarding {FAMILIES[version]}", "fail", seen, persistent(name, "1")))
    return tuple(found)


def hashing(versions: Iterable[int], policies: Mapping[int, int], fields: Mapping[int, int]) -> tuple[Finding, ...]:
    """What decides which of several next hops a flow gets; `fields` counts with policy 3."""
    found = []
    for version in versions:
        name, policy = f"net.{FAMILIES[version]}.fib_multipath_hash_policy", policies.get(version, 0)
        label, mend = f"hash {FAMILIES[version]}", persistent(name, "1")
        used = fields.get(version, 0)
        if policy in POLICY:
            found.append(Finding(label, "warn", f"{name} {POLICY[policy]}", mend))
        elif policy == 3 and not used & (SOURCE | SOURCE_PORT):
            seen = f"{name} 3 with fields {used:#x}: neither source address nor source port, so all go to one node"
            found.append(Finding(label, "fail", seen, mend))
        else:
            what = "addresses and ports" if policy == 1 else f"fields {used:#x}"
            found.append(Finding(label, "ok", f"{name} {policy}, by {what}"))
    return tuple(found)


def routes(cluster: Cluster, routed: Mapping[str, Routed]) -> tuple[Finding, ...]:
    """Whether every VIP has a next hop for each node that should announce it. `routed` lacks VIPs without a route."""
    names = {
        str(address): name for name, node in cluster.nodes.items() for address in (node.ipv4, node.ipv6) if address
    }
    found, good = [], {}
    for vip, nodes in announcers(cluster).items():
        way = routed.get(str(vip))
        if way is None or not way.gateways:
            mend = f"lbnode status on {', '.join(nodes)}: do they announce it? Here: sessions, import filters"
            found.append(Finding(f"route {vip}", "fail", "none: its packets are dropped or go elsewhere", mend))
            continue
        known = [names[gateway] for gateway in way.gateways if gateway in names]
        missing = [node for node in nodes if node not in known]
        if missing and known:
            mend = f"lbnode status on {', '.join(missing)}; here: sessions, and the limit of next hops"
            seen = f"{len(way.gateways)} next hops, none by {', '.join(missing)}"
            found.append(Finding(f"route {vip}", "warn", seen, mend))
        else:
            good[str(vip)] = len(way.gateways)
    if good:
        counts = ", ".join(f"{vip} {count}" for vip, count in good.items())
        found.insert(0, Finding("routes", "ok", f"next hops: {counts}"))
    return tuple(found)


def announcers(cluster: Cluster) -> dict[IPAddress, list[str]]:
    """VIP -> the nodes that routers should send its packets to: where peers have addresses, those that are preferred,
    else all that announce it."""
    best: dict[IPAddress, dict[str, None]] = {}
    for (vip, _), nodes in next_hops(cluster).items():
        best.setdefault(vip, {}).update(dict.fromkeys(nodes))
    every: dict[IPAddress, dict[str, None]] = {}
    for name in cluster.nodes:
        for service in cluster.announced_by(name).values():
            for vip in service.vips:
                every.setdefault(vip, {})[name] = None
    return {vip: list(nodes) for vip, nodes in (every | best).items()}


def reverse_path(
    of_all: int, devices: Mapping[str, int], routed: Mapping[str, Routed], answering: Sequence[str]
) -> tuple[Finding, ...]:
    """Answers come straight from the real servers, with a VIP as their source. A strict filter drops them where the
    route to the VIP leads another way (RFC 3704, 2.2). `devices` have their own rp_filter; `answering` are the devices
    behind which real servers stand."""
    towards = {device for vip, way in routed.items() if ":" not in vip for device in way.devices}
    bad = [name for name in dict.fromkeys(answering) if max(of_all, devices.get(name, 0)) == 1 and name not in towards]
    if not bad:
        return (Finding("rp_filter", "ok", "answers with a VIP as their source get through"),)
    found = []
    for name in bad:
        seen = f"1, strict (all {of_all}, {name} {devices.get(name, 0)}): answers of real servers behind it are dropped"
        who = [one for one, value in (("all", of_all), (name, devices.get(name, 0))) if value == 1]
        mend = " and ".join(persistent(f"net.ipv4.conf.{one}.rp_filter", "0") for one in who)
        found.append(Finding(f"rp_filter {name}", "fail", seen, mend))
    return tuple(found)
