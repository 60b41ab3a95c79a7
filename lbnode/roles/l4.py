"""The L4 node: IPVS virtual services and destinations, VIPs local to the node, kernel settings, announcements. PURE.

A real server that fails, drains or is in maintenance keeps its row, at weight 0: with mh-fallback no other server's
flows move, and none move when it comes back. One that has failed also gets a local route, which ends the flows it has;
docs/adr/0004-two-ways-to-leave.md says why so. A VIP is announced while people want the node in service and enough
of its real servers are up.
"""

from collections.abc import Collection
from typing import Literal

from lbnode.bgp import exabgp
from lbnode.config.model import IPAddress, Node, Service
from lbnode.maintenance.state import Mode
from lbnode.resources import (
    LOCAL_TABLE,
    Address,
    Announcement,
    Destination,
    DestinationOrder,
    File,
    IpvsTimeouts,
    Key,
    Link,
    LocalRoute,
    Row,
    Rule,
    Running,
    ServiceKey,
    Sysctl,
    VirtualService,
)
from lbnode.roles.direct_return import VIP_LINK
from lbnode.roles.inputs import Desired, Inputs, Verdict
from lbnode.roles.targets import Standing, agent_probe, health_probe, standing

FAMILIES: tuple[Literal[4, 6], ...] = (4, 6)
SYSCTLS = {
    # A flow that another L4 node has scheduled arrives here in the middle: take its ACK as the start of an entry.
    "net.ipv4.vs.sloppy_tcp": "1",
    # An ICMP error of such a flow is scheduled like the flow itself (net/netfilter/ipvs/ip_vs_core.c).
    "net.ipv4.vs.schedule_icmp": "1",
    # The outer packet may be fragmented: clients need not learn of the tunnel.
    "net.ipv4.vs.pmtu_disc": "0",
    # With 1, a packet that meets a row between its removal and its return is sent elsewhere for good.
    "net.ipv4.vs.expire_nodest_conn": "0",
    # A row at weight 0 keeps the flows it has.
    "net.ipv4.vs.expire_quiescent_template": "0",
    # A client that reuses its port after the end of a flow is scheduled afresh.
    "net.ipv4.vs.conn_reuse_mode": "1",
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    # Packets of clients may come in by another router than the one the way back would take.
    "net.ipv4.conf.all.rp_filter": "0",
    # While a real server's address is local here, its answers to probes come from an address of this node: martians
    # otherwise (net/ipv4/fib_frontend.c, __fib_validate_source). IPv6 has no such check.
    "net.ipv4.conf.all.accept_local": "1",
}

Families = dict[int, dict[str, tuple[Node, Standing]]]
"""Family (4 or 6) to real servers by name, in canonical order."""

# What this node itself sends, without a mark, asks the table of local routes first. IPVS's look-ups are of that kind,
# probes are marked. Without `iif lo` the node would answer ARP for the failed servers.
FAIL_RULES = tuple(Rule(version, 200, LOCAL_TABLE, "lo", 0, 0xFFFFFFFF) for version in FAMILIES)


def desired(inputs: Inputs) -> Desired:
    """Everything an L4 node should have."""
    standings = _standings(inputs)
    services = (_service(service, standings[name]) for name, service in inputs.cluster.services.items())
    failed = _failed(inputs, standings)
    servers = Desired(verdicts=_server_verdicts(standings, {row.key[1] for row in failed.rows}))
    return Desired.merge([_host(inputs), *services, failed, servers, _announcements(inputs, standings)])


def _host(inputs: Inputs) -> Desired:
    vips = {str(vip) for service in inputs.cluster.services.values() for vip in service.vips}
    config = exabgp.config(inputs.templates, inputs.cluster, inputs.name, inputs.paths)
    limits = inputs.cluster.ipvs
    rows: list[Row] = [Sysctl(name, value) for name, value in SYSCTLS.items()]
    rows += [*FAIL_RULES, IpvsTimeouts(limits.tcp_timeout_s, limits.tcp_fin_timeout_s, limits.udp_timeout_s)]
    rows += [Link(VIP_LINK, "dummy"), *(Address(vip, VIP_LINK) for vip in sorted(vips))]
    rows += [
        File(str(inputs.paths.exabgp_config), config, checker="exabgp"),
        Running("exabgp", exabgp.digest(config)),
    ]
    return Desired(tuple(rows))


def _service(service: Service, families: Families) -> Desired:
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    for vip in service.vips:
        for port in service.ports:
            key = ServiceKey(str(vip), "tcp", port)
            rows.append(VirtualService(key))
            table = [
                (_destination(key, node, serial, vip.version, found), found)
                for serial, (node, found) in enumerate(families[vip.version].values(), start=1)
            ]
            rows += [row for row, _ in table]
            rows.append(DestinationOrder(key, tuple(row.address for row, _ in table)))
            reasons.update({row.key: found.reason for row, found in table})
    return Desired(tuple(rows), reasons)


def _destination(key: ServiceKey, node: Node, serial: int, version: int, found: Standing) -> Destination:
    address, full = str(node.address(version)), node.weight
    return Destination(key, address, found.weight(full), table_weight=found.share(full), serial=serial)


def _standings(inputs: Inputs) -> dict[str, Families]:
    """What is known of the real servers of every service, in each family that it has a VIP of."""
    cluster, health = inputs.cluster, inputs.health

    def found(service: Service, node: Node, version: int) -> Standing:
        return standing(health, health_probe(cluster, service, node, version), agent_probe(cluster, node))

    return {
        name: {
            version: {
                server: (node, found(service, node, version)) for server, node in cluster.real_servers(service).items()
            }
            for version in dict.fromkeys(vip.version for vip in service.vips)
        }
        for name, service in cluster.services.items()
    }


def _failed(inputs: Inputs, standings: dict[str, Families]) -> Desired:
    """A local route for each address of a failed real server that every service it stands in can do without.

    A route ends the flows of all services that go to the address, so one that still uses it prevents it. And when all
    real servers of a service have failed at once, this node may be what is wrong: their flows are left alone.
    """
    lost: dict[str, str] = {}
    kept: set[str] = set()
    for families in standings.values():
        for version, servers in families.items():
            alone = all(found.failed for _, found in servers.values())
            for node, found in servers.values():
                address = str(node.address(version))
                if found.failed and not alone:
                    lost[address] = found.reason
                else:
                    kept.add(address)
    own = {version: inputs.node.address(version) for version in FAMILIES}
    rows = [LocalRoute(address, str(own[6 if ":" in address else 4])) for address in lost if address not in kept]
    return Desired(tuple(rows), {row.key: lost[row.address] for row in rows})


def _announcements(inputs: Inputs, standings: dict[str, Families]) -> Desired:
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    verdicts: dict[Verdict, None] = {}
    vips = {vip: None for service in inputs.cluster.services.values() for vip in service.vips}
    for vip in vips:
        verdict = _should_announce(inputs, vip, standings)
        verdicts[verdict] = None
        for peer in inputs.cluster.bgp.peers.values():
            next_hop = inputs.node.address(vip.version)
            if peer.address.version != vip.version or next_hop is None:
                continue
            row = Announcement(f"{vip}/{vip.max_prefixlen}", str(peer.address), str(next_hop))
            reasons[row.key] = verdict.reason
            if verdict.good:
                rows.append(row)
    return Desired(tuple(rows), reasons, tuple(verdicts))


def _should_announce(inputs: Inputs, vip: IPAddress, standings: dict[str, Families]) -> Verdict:
    """A VIP is announced while the node is ready and at least one of its services has its quorum."""
    if inputs.admin.mode is not Mode.READY:
        return Verdict("vip", str(vip), False, "withdrawn", f"this node is in {inputs.admin}")
    counts, enough = [], False
    for name, service in inputs.cluster.services.items():
        if vip in service.vips:
            servers = standings[name][vip.version].values()
            up = sum(found.weight(node.weight) > 0 for node, found in servers)
            enough = enough or up >= service.quorum
            counts.append(f"{name} has {up} of {len(servers)} servers, needs {service.quorum}")
    return Verdict("vip", str(vip), enough, "announced" if enough else "withdrawn", "; ".join(counts))


def _server_verdicts(standings: dict[str, Families], ended: Collection[str | int]) -> tuple[Verdict, ...]:
    """One verdict per real server and family, in the order of the file. `ended`: addresses with a local route."""
    verdicts: dict[Verdict, None] = {}
    for families in standings.values():
        for version, servers in families.items():
            for name, (node, found) in servers.items():
                weight = found.weight(node.weight)
                address = str(node.address(version))
                state = f"weight {weight}" + (", failed: its flows are ended" if address in ended else "")
                verdicts[Verdict("server", f"{name} ({address})", weight > 0, state, found.reason)] = None
    return tuple(verdicts)
