"""The L4 node: IPVS virtual services and destinations, VIPs local to the node, kernel settings, announcements. PURE.

A real server that fails, drains or is in maintenance keeps its row, at weight 0: with mh-fallback no other server's
flows move, and none move when it comes back. One that has failed also gets a local route, which ends the flows it has;
docs/adr/0004-two-ways-to-leave.md says why so. A VIP is announced while people want the node in service and enough
of its real servers serve.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from lbnode.config.model import IPAddress, Node, Service
from lbnode.health.state import Probe
from lbnode.maintenance.state import Mode
from lbnode.resources import (
    LOCAL_TABLE,
    Address,
    Destination,
    DestinationOrder,
    IpvsTimeouts,
    Key,
    Link,
    LocalRoute,
    PacketMark,
    Row,
    Rule,
    ServiceKey,
    SourceAllow,
    SynLimit,
    Sysctl,
    VirtualService,
)
from lbnode.roles import announcing, leaving, too_big, virtual_services
from lbnode.roles.direct_return import VIP_LINK
from lbnode.roles.inputs import Desired, Inputs, Verdict
from lbnode.roles.places import Place, places
from lbnode.roles.prober import FAMILIES, Prober, destination
from lbnode.roles.serving import Server, Servers, Serving, enough, mark, serving, settling
from lbnode.roles.targets import standing

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

Found = dict[tuple[str, int], tuple[Servers, Serving]]
"""By service and family (4 or 6): what is known of its real servers, and what each of them gets."""

# What this node itself sends, without a mark, asks the table of local routes first. IPVS's look-ups are of that kind,
# probes are marked. Without `iif lo` the node would answer ARP for the failed servers.
FAIL_RULES = tuple(Rule(version, 200, LOCAL_TABLE, "lo", 0, 0xFFFFFFFF) for version in FAMILIES)


def desired(inputs: Inputs) -> Desired:
    """Everything an L4 node should have."""
    prober = Prober(inputs.cluster, inputs.name)
    found = _found(inputs, prober)
    services = (_service(inputs, name, found) for name in inputs.cluster.balanced)
    failed = _failed(inputs, found)
    ended = {row.address for row in failed.rows if isinstance(row, LocalRoute)}
    verdicts = Desired(verdicts=_server_verdicts(found, ended), removal_s=inputs.cluster.ipvs.removal_deadline_s)
    parts = [groundwork(inputs, prober), announcing.speaker(inputs), *services, failed, verdicts]
    return Desired.merge([*parts, _announcements(inputs, found)])


def groundwork(inputs: Inputs, prober: Prober | None = None) -> Desired:
    """What does not depend on health, and without which no probe would go the way of clients' packets."""
    vips = {str(vip) for service in inputs.cluster.balanced.values() for vip in service.vips}
    limits = inputs.cluster.ipvs
    rows: list[Row] = [Sysctl(name, value) for name, value in SYSCTLS.items()]
    rows += [*FAIL_RULES, IpvsTimeouts(limits.tcp_timeout_s, limits.tcp_fin_timeout_s, limits.udp_timeout_s)]
    rows += [Link(VIP_LINK, "dummy"), *(Address(vip, VIP_LINK) for vip in sorted(vips))]
    rows += too_big.listeners(inputs.node, inputs.cluster.balanced.values())
    probes = (prober or Prober(inputs.cluster, inputs.name)).rows()
    return Desired((*rows, *probes), {row.key: "for probes" for row in probes})


def _found(inputs: Inputs, prober: Prober) -> Found:
    """Services that the same probes tell about share what is known."""
    cluster = inputs.cluster
    known: dict[object, Servers] = {}

    def servers(name: str, service: Service, version: Literal[4, 6]) -> Servers:
        subject = prober.subjects[name, version]
        group = (subject, service.through, service.pool if service.through == "backend" else "")
        if group not in known:
            known[group] = {
                server: _server(inputs, node, prober.health(name, server, version), prober.agent(server, version))
                for server, node in cluster.real_servers(service).items()
            }
        return known[group]

    found: Found = {}
    for name, service in cluster.balanced.items():
        for version in FAMILIES:
            if (name, version) in prober.subjects:
                here = servers(name, service, version)
                found[name, version] = (here, serving(service, here))
    return found


def _server(inputs: Inputs, node: Node, asked: Sequence[Probe], agent: Probe) -> Server:
    """`agent` asks at its own address."""
    known = standing(inputs.health, asked, agent, agent.address in inputs.ended)
    return Server(known, agent.address, known.share(node.weight))


def _service(inputs: Inputs, name: str, found: Found) -> Desired:
    """Its virtual services, and the rules about its packets."""
    service = inputs.cluster.balanced[name]
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    known: dict[int, list[Place]] = {}
    for version, key in virtual_services.keys(service):
        if version not in known:
            known[version] = places(*found[name, version])
        like = _destination(inputs, service, key)
        made = [place.row(like) for place in known[version]]
        rows += [_virtual_service(service, key, version), *made]
        rows.append(DestinationOrder(key, tuple(row.name for row in made)))
        reasons.update((row.key, place.reason) for row, place in zip(made, known[version], strict=True))
    rows += [rule for vip in service.vips for rule in _packet_rules(service, vip)]
    return Desired(tuple(rows), reasons)


def _virtual_service(service: Service, key: ServiceKey, version: Literal[4, 6]) -> VirtualService:
    ipvs = service.ipvs
    flags = list(virtual_services.flags(service))
    flags += ["one-packet"] if ipvs.one_packet else []
    flags += ["persistent"] if ipvs.persistence_s else []
    bits, whole = (ipvs.persistence_ipv4_prefix, 32) if version == 4 else (ipvs.persistence_ipv6_prefix, 128)
    prefix = bits if ipvs.persistence_s and bits != whole else 0
    return VirtualService(key, ipvs.scheduler, tuple(sorted(flags)), ipvs.persistence_s or 0, prefix)


def _destination(inputs: Inputs, service: Service, key: ServiceKey) -> Destination:
    """A row with all that the service's settings say, without a real server."""
    ipvs = service.ipvs
    port = inputs.cluster.pools[service.pool].port if ipvs.forwarding == "masquerade" else 0
    lower = ipvs.resume_connections or ipvs.max_connections * 3 // 4
    row = destination(key, service, "", 0, port)
    return replace(row, upper=ipvs.max_connections, lower=lower) if ipvs.max_connections else row


def _packet_rules(service: Service, vip: IPAddress) -> Iterator[Row]:
    """Rules of our packet filter about a service's packets to one VIP."""
    access = service.access
    for key in virtual_services.endpoints(service, vip):
        if service.ipvs.mark is not None:
            yield PacketMark(key, service.ipvs.mark)
        if access.allow is not None:
            sources = [network for network in access.allow if network.version == vip.version]
            yield SourceAllow(key, tuple(sorted(map(str, sources))))
        if access.syn_per_s is not None and service.protocol == "tcp":
            yield SynLimit(key, access.syn_per_s, access.syn_burst)


def _failed(inputs: Inputs, found: Found) -> Desired:
    """A local route for each address of a failed real server that every service it stands in can do without.

    A route ends the flows of all services that go to the address, so one that still uses it prevents it. And when all
    real servers of a service have failed at once, this node may be what is wrong: their flows are left alone, also
    when the first of them is back and the others have not had the time.
    """
    lost: dict[str, str] = {}
    kept: set[str] = set()
    for servers, now in found.values():
        alone = all(server.known.failed for server in servers.values())
        early = settling(servers, inputs.cluster.probe)
        for server, (known, address, _) in servers.items():
            sure = not early or known.admin.mode is Mode.MAINT or address in inputs.ended
            if known.failed and not alone and sure and not now.weights[server]:
                lost[address] = known.reason
            else:
                kept.add(address)
    own = {version: str(inputs.node.address(version)) for version in FAMILIES}
    rows = [LocalRoute(address, own[6 if ":" in address else 4]) for address in lost if address not in kept]
    return Desired(tuple(rows), {row.key: lost[row.address] for row in rows})


def _announcements(inputs: Inputs, found: Found) -> Desired:
    behind: dict[IPAddress, dict[str, Service]] = {}
    for name, service in inputs.cluster.balanced.items():
        for vip in service.vips:
            behind.setdefault(vip, {})[name] = service
    verdicts = {vip: _should_announce(inputs, vip, services, found) for vip, services in behind.items()}
    return announcing.announcements(inputs, verdicts)


def _should_announce(inputs: Inputs, vip: IPAddress, services: Mapping[str, Service], found: Found) -> Verdict:
    """A VIP is announced while the node is ready and at least one of its services has its quorum."""
    announced = str(vip) in inputs.announced
    counts, good = [], False
    for name, service in services.items():
        servers, now = found[name, vip.version]
        waits = not announced and settling(servers, inputs.cluster.probe)
        good = good or (enough(service, now, announced) and not waits)
        words = f"{name} has {now.count} of {len(servers)} servers, needs {mark(service, announced)}"
        words += " (more may come back at any moment)" if waits else ""
        counts.append(f"{words} ({now.panic})" if now.panic else words)
    return leaving.decided(inputs, str(vip), good, "; ".join(counts))


def _server_verdicts(found: Found, ended: set[str]) -> tuple[Verdict, ...]:
    """One verdict per real server, family and weight, in the order of the file. `ended`: addresses with a local
    route."""
    # Many services have the same real servers: their verdicts are told apart before they are put into words.
    told = {
        (server, address, now.weights[server], known.reason): None
        for servers, now in found.values()
        for server, (known, address, _) in servers.items()
    }
    return tuple(
        Verdict(
            "server",
            f"{server} ({address})",
            weight > 0,
            f"weight {weight}" + (", failed: its flows are ended" if address in ended else ""),
            reason,
        )
        for server, address, weight, reason in told
    )
