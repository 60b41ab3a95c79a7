"""The configurations of the keepalived stack, from the cluster file. PURE.

The words stand in the topology's folder `keepalived/`; here they get their values. What is set, what is left to the
programs' defaults, and the timers follow the published lab of the same three tiers (vincentbernat/network-lab,
lab-3tier-lb) and the article about it: IPVS mh with mh-port and without mh-fallback, tunnels, one virtual server group
with its checks for many VIPs, a real server deleted when its health URI fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lbnode.bgp.exabgp import router_id
from lbnode.config.model import Balancing, Cluster, IPAddress, Service
from lbnode.haproxy.quoting import duration
from lbnode.lab.errors import LabError
from lbnode.templates import Templates

KEEPALIVED_CONF, EXABGP_CONF, HAPROXY_CFG = "keepalived.conf", "exabgp.conf", "haproxy.cfg"
DISABLE = "/etc/lb/disable"
READY = {4: "/etc/lb/v4-ready", 6: "/etc/lb/v6-ready"}
"""keepalived makes and removes these as a family's real servers come and go; ExaBGP's health check looks for them."""
HAPROXY_SOCKET = "/run/haproxy-admin.sock"
MAXCONN = 20000
FAMILIES = (4, 6)


KNOWN = (Balancing(), Balancing(scheduler="sh"))


@dataclass(frozen=True)
class Timers:
    """Seconds. What is not here is left at its default: keepalived asks once more, 3 s after a failed check
    (`retry 1`, `delay_before_retry 3`); ExaBGP's health check wants three answers in a row, 1 s apart, either way."""

    delay_loop_s: int
    interval_s: int
    connect_timeout_s: int = 2


SLOW = Timers(delay_loop_s=10, interval_s=10)
"""The published lab's."""
FAST = Timers(delay_loop_s=1, interval_s=1)
"""The shortest that both programs take in whole seconds. On a processor shared by a whole lab that is a lot of asking:
the small scale of three tiers has 36 checks a second."""


@dataclass(frozen=True)
class Check:
    """What is asked of a real server, at its own address."""

    type: str
    port: int
    path: str


@dataclass(frozen=True)
class Group:
    """VIPs of one family that share a port, a scheduler and real servers, and with them the checks."""

    name: str
    scheduler: str
    vips: tuple[IPAddress, ...]
    port: int
    protocol: str
    servers: tuple[IPAddress, ...]
    check: Check
    ready: str


def groups(cluster: Cluster, l7: Sequence[str]) -> list[Group]:
    """What an L4 node serves, with these L7 nodes, in this order. Raises LabError for services this stack lacks."""
    found: dict[str, Group] = {}
    for name, service in cluster.services.items():
        if service.protocol not in ("tcp", "udp") or service.ipvs not in KNOWN:
            raise LabError(f"cannot serve {name} with keepalived: its files know TCP, UDP, mh or sh, and ipip only")
        for version in FAMILIES:
            vips = tuple(vip for vip in service.vips if vip.version == version)
            for port in service.ports if vips else ():
                group = _group(cluster, service, l7, version, port)
                known = found.get(group.name, group)
                found[group.name] = replace(group, vips=(*known.vips, *vips))
    return list(found.values())


def _group(cluster: Cluster, service: Service, l7: Sequence[str], version: int, port: int) -> Group:
    """Without VIPs yet."""
    behind = "l7" if service.through == "l7" else f"{service.pool}-direct"
    members = l7 if service.through == "l7" else tuple(cluster.members(service.pool))
    servers = tuple(_address(cluster, member, version) for member in members)
    scheduler, check = service.ipvs.scheduler, _check(cluster, service)
    name = f"{behind}-v{version}-{port}" + ("" if scheduler == "mh" else f"-{scheduler}")
    return Group(name, scheduler, (), port, service.protocol, servers, check, READY[version])


def _check(cluster: Cluster, service: Service) -> Check:
    if service.through == "l7":
        return Check("http", cluster.health.port, cluster.health.path)
    pool = cluster.pools[service.pool]
    return Check(pool.check.type, pool.port, pool.check.path)


def _address(cluster: Cluster, name: str, version: int) -> IPAddress:
    address = cluster.nodes[name].address(version)
    if address is None:
        raise LabError(f"cannot use {name} as a real server: it has no IPv{version} address")
    return address


def keepalived_conf(templates: Templates, cluster: Cluster, node: str, l7: Sequence[str], timers: Timers) -> str:
    """An L4 node's keepalived.conf. The L7 nodes stand in the order given: it decides the order of the IPVS rows."""
    return templates.render(f"{KEEPALIVED_CONF}.j2", node=node, groups=groups(cluster, l7), timers=timers)


def exabgp_conf(templates: Templates, cluster: Cluster, name: str, timers: Timers, healthcheck: Sequence[str]) -> str:
    """An L4 node's exabgp.conf. `healthcheck` starts ExaBGP's health check: one process per family of VIPs."""
    node = cluster.nodes[name]
    every = {vip: None for service in cluster.services.values() for vip in service.vips}
    families = {version: [vip for vip in every if vip.version == version] for version in FAMILIES}
    peers = [
        {"name": label, "address": peer.address, "asn": peer.asn, "local_address": own, "version": own.version}
        for label, peer in cluster.bgp.peers.items()
        if (own := node.address(peer.address.version)) is not None
    ]
    return templates.render(
        f"{EXABGP_CONF}.j2",
        node={"name": name},
        families={version: vips for version, vips in families.items() if vips},
        healthcheck=" ".join(healthcheck),
        timers=timers,
        ready=READY,
        disable=DISABLE,
        peers=peers,
        router_id=router_id(node),
        local_asn=cluster.bgp.local_asn,
        hold_time_s=cluster.bgp.hold_time_s,
    )


def haproxy_cfg(templates: Templates, cluster: Cluster, name: str) -> str:
    """An L7 node's haproxy.cfg: every service that goes through L7, on all its VIPs."""
    node = cluster.nodes[name]
    services = {label: service for label, service in cluster.services.items() if service.through == "l7"}
    return templates.render(
        f"{HAPROXY_CFG}.j2",
        node=name,
        socket=HAPROXY_SOCKET,
        maxconn=MAXCONN,
        addresses=[_host(address) for address in (node.ipv4, node.ipv6) if address is not None],
        health=cluster.health,
        agent={"port": cluster.agent_check.port, "interval": duration(cluster.agent_check.interval_s)},
        services=[_frontend(label, service) for label, service in services.items()],
        pools=[_pool(cluster, label) for label in dict.fromkeys(service.pool for service in services.values())],
    )


def _frontend(name: str, service: Service) -> dict[str, Any]:
    return {
        "name": name,
        "mode": service.mode,
        "binds": [f"{_host(vip)}:{port}" for vip in service.vips for port in service.ports],
        "backend": f"{service.pool}-servers" + ("-tcp" if service.mode == "tcp" else ""),
    }


def _pool(cluster: Cluster, name: str) -> dict[str, Any]:
    pool = cluster.pools[name]
    endpoints = {
        server: _host(address)
        for server, node in cluster.members(name).items()
        if (address := node.ipv6 or node.ipv4) is not None
    }
    return {
        "name": f"{name}-servers",
        "check": {"type": pool.check.type, "path": pool.check.path, "interval": duration(pool.check.interval_s)},
        "servers": [{"name": server, "endpoint": f"{host}:{pool.port}"} for server, host in endpoints.items()],
    }


def _host(address: IPAddress) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
