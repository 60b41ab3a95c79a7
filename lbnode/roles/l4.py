"""The L4 node: IPVS virtual services and destinations, VIPs local to the node, kernel settings, announcements. PURE.

A real server that fails, drains or is in maintenance keeps its row, at weight 0: with mh-fallback no other server's
flows move, and none move when it comes back. A VIP is announced while people want the node in service and enough of
its real servers are up.
"""

from lbnode.bgp import exabgp
from lbnode.config.model import IPAddress, Node, Service
from lbnode.maintenance.state import Mode
from lbnode.resources import (
    Address,
    Announcement,
    Destination,
    DestinationOrder,
    File,
    Key,
    Link,
    Row,
    Running,
    ServiceKey,
    Sysctl,
    VirtualService,
)
from lbnode.roles.direct_return import VIP_LINK
from lbnode.roles.inputs import Desired, Inputs, Verdict
from lbnode.roles.targets import Standing, agent_probe, health_probe, standing

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
}


def desired(inputs: Inputs) -> Desired:
    """Everything an L4 node should have."""
    services = inputs.cluster.services.values()
    return Desired.merge([_host(inputs), *(_service(inputs, service) for service in services), _announcements(inputs)])


def _host(inputs: Inputs) -> Desired:
    vips = {str(vip) for service in inputs.cluster.services.values() for vip in service.vips}
    config = exabgp.config(inputs.templates, inputs.cluster, inputs.name, inputs.paths)
    rows: list[Row] = [Sysctl(name, value) for name, value in SYSCTLS.items()]
    rows += [Link(VIP_LINK, "dummy"), *(Address(vip, VIP_LINK) for vip in sorted(vips))]
    rows += [
        File(str(inputs.paths.exabgp_config), config, checker="exabgp"),
        Running("exabgp", exabgp.digest(config)),
    ]
    return Desired(tuple(rows))


def _service(inputs: Inputs, service: Service) -> Desired:
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    for vip in service.vips:
        for port in service.ports:
            key = ServiceKey(str(vip), "tcp", port)
            rows.append(VirtualService(key))
            table = [
                (_destination(key, node, serial, vip.version, found), found)
                for serial, (node, found) in enumerate(_standings(inputs, service, vip).values(), start=1)
            ]
            rows += [row for row, _ in table]
            rows.append(DestinationOrder(key, tuple(row.address for row, _ in table)))
            reasons.update({row.key: found.reason for row, found in table})
    return Desired(tuple(rows), reasons)


def _destination(key: ServiceKey, node: Node, serial: int, version: int, found: Standing) -> Destination:
    address, full = str(node.address(version)), node.weight
    return Destination(key, address, found.weight(full), table_weight=found.share(full), serial=serial)


def _standings(inputs: Inputs, service: Service, vip: IPAddress) -> dict[str, tuple[Node, Standing]]:
    """The real servers of one VIP's virtual services, by name, in canonical order."""
    cluster, health = inputs.cluster, inputs.health

    def found(node: Node) -> Standing:
        return standing(health, health_probe(cluster, service, node, vip.version), agent_probe(cluster, node))

    return {name: (node, found(node)) for name, node in cluster.real_servers(service).items()}


def _announcements(inputs: Inputs) -> Desired:
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    verdicts: dict[Verdict, None] = {}
    vips = {vip: None for service in inputs.cluster.services.values() for vip in service.vips}
    for vip in vips:
        verdict = _should_announce(inputs, vip)
        verdicts[verdict] = None
        for peer in inputs.cluster.bgp.peers.values():
            next_hop = inputs.node.address(vip.version)
            if peer.address.version != vip.version or next_hop is None:
                continue
            row = Announcement(f"{vip}/{vip.max_prefixlen}", str(peer.address), str(next_hop))
            reasons[row.key] = verdict.reason
            if verdict.good:
                rows.append(row)
    return Desired(tuple(rows), reasons, (*_server_verdicts(inputs), *verdicts))


def _should_announce(inputs: Inputs, vip: IPAddress) -> Verdict:
    """A VIP is announced while the node is ready and at least one of its services has its quorum."""
    if inputs.admin.mode is not Mode.READY:
        return Verdict("vip", str(vip), False, "withdrawn", f"this node is in {inputs.admin}")
    counts, enough = [], False
    for name, service in inputs.cluster.services.items():
        if vip in service.vips:
            standings = _standings(inputs, service, vip).values()
            up = sum(found.weight(node.weight) > 0 for node, found in standings)
            enough = enough or up >= service.quorum
            counts.append(f"{name} has {up} of {len(standings)} servers, needs {service.quorum}")
    return Verdict("vip", str(vip), enough, "announced" if enough else "withdrawn", "; ".join(counts))


def _server_verdicts(inputs: Inputs) -> list[Verdict]:
    """One verdict per real server and family, in the order of the file."""
    verdicts: dict[Verdict, None] = {}
    for service in inputs.cluster.services.values():
        for vip in service.vips:
            for name, (node, found) in _standings(inputs, service, vip).items():
                weight = found.weight(node.weight)
                label = f"{name} ({node.address(vip.version)})"
                verdicts[Verdict("server", label, weight > 0, f"weight {weight}", found.reason)] = None
    return list(verdicts)
