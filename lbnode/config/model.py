"""The cluster file as values: what an operator writes, with the defaults filled in.

Every model is frozen and refuses unknown keys. What a field means to an operator is its `description`; the reference
page and the JSON Schema are made from it. Checks that need more than one field stand in `lbnode.config.crosscheck`.
"""

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.bgp import Attributes, Bgp, Peer, Unnumbered
from lbnode.config.dns import Dns
from lbnode.config.frozen import Model
from lbnode.config.http import Clients, FromDns, Haproxy, RawService, Route, ServerTls, Timeouts, Tls
from lbnode.config.values import (
    Asn,
    Between,
    FilePath,
    Flag,
    Hostname,
    Idle,
    InOrder,
    IPAddress,
    Ipv4,
    Ipv6,
    Name,
    Named,
    Page,
    Port,
    Prefix,
    Program,
    Seconds,
    Status,
    Streak,
    Text,
    Token,
    UriPath,
)

__all__ = [
    "Access",
    "AgentCheck",
    "Asn",
    "Attributes",
    "Balancing",
    "Bgp",
    "Check",
    "Cluster",
    "Dns",
    "HealthUri",
    "IPAddress",
    "Ipvs",
    "Metrics",
    "Model",
    "Name",
    "Node",
    "Peer",
    "Pool",
    "Port",
    "Probe",
    "Role",
    "Scheduler",
    "SecondChance",
    "Seconds",
    "Service",
    "ServiceProbe",
    "Tunnel",
    "Unnumbered",
    "UriPath",
]

Role = Literal["l4", "l7", "backend"]
Scheduler = Literal[
    "mh", "sh", "dh", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sed", "nq", "fo", "ovf", "twos"
]  # net/netfilter/ipvs/Kconfig
Flags = Literal["mh-fallback", "mh-port", "sh-fallback", "sh-port"]
Count = Annotated[int, Between(0, 2147483647)]


class Node(Model):
    """One machine."""

    role: Role = Field(description="What the machine does: l4, l7 or backend.")
    ipv4: Ipv4 | None = Field(None, description="Its own IPv4 address: BGP source, tunnel end, probe target.")
    ipv6: Ipv6 | None = Field(None, description="Its own IPv6 address, likewise.")
    tags: tuple[Name, ...] = Field((), description="Words of your own by which pools find their nodes.")
    weight: Annotated[int, Between(1, 1000)] = Field(100, description="Its share of new flows among its peers.")
    serial: Annotated[int, Between(1, 65535)] | None = Field(
        None,
        description="Its place among the real servers of its role, in every L4 node's Maglev tables: lowest first. All "
        "nodes of a role have one, or none of them has: then the order of the file counts.",
    )
    attributes: Attributes = Field(Attributes(), description="What this node announces with.")

    def address(self, version: int) -> IPAddress | None:
        return self.ipv4 if version == 4 else self.ipv6


class Probe(Model):
    """How L4 nodes probe real servers."""

    interval_s: Seconds = Field(1.0, description="Seconds from one probe to the next.")
    timeout_s: Seconds = Field(1.0, description="Seconds after which a probe has failed; it may exceed the interval.")
    rise: Streak = Field(2, description="Successes in a row until a server is up.")
    fall: Streak = Field(2, description="Failures in a row until a server is down.")
    jitter: Annotated[float, Between(0, 0.5)] = Field(
        0.1, description="Share of the interval by which a probe may come early or late, at random."
    )
    via: Literal["tunnel", "direct"] = Field(
        "tunnel",
        description="tunnel: to a VIP, by IPVS and the way that clients' packets go; direct: to the real server's own "
        "address.",
    )


class Ipvs(Model):
    """How long IPVS on the L4 nodes remembers a flow that is idle; it holds for everything that uses IPVS there."""

    tcp_timeout_s: Idle = Field(
        3900,
        description="Seconds for an open TCP flow: longer than the longest idle time the real servers allow, or an "
        "idle flow of a drained server is reset when it speaks again.",
    )
    tcp_fin_timeout_s: Idle = Field(120, description="Seconds for a TCP flow that a side has ended.")
    udp_timeout_s: Idle = Field(300, description="Seconds for a UDP flow.")
    removal_deadline_s: Idle = Field(
        3600,
        description="Seconds that a real server which has left this file keeps its place, without new flows, while it "
        "still has old ones.",
    )


class SecondChance(Model):
    """What becomes of a TCP flow that comes to a real server which does not know it, as when the real servers have
    changed and ECMP then moves it: the real server sends it on to the one that has it. For services with scheduler mh
    and tunnel ipip."""

    enabled: Flag = Field(True, description="Whether real servers send such flows on; they need Linux 5.10.")
    keep_s: Idle = Field(
        86400,
        description="Seconds for which a Maglev table of before is remembered: as long as a connection may last.",
    )


class HealthUri(Model):
    """The URI on which an L7 node says whether it can serve."""

    port: Port = Field(5580, description="TCP port of the health URI on the L7 node's own addresses.")
    path: UriPath = Field("/healthcheck", description="Path of the health URI.")


class AgentCheck(Model):
    """The agent-check responder of L7 and backend nodes."""

    port: Port = Field(5555, description="TCP port of the agent-check responder.")
    interval_s: Seconds = Field(2.0, description="Seconds between HAProxy's agent checks.")
    allow: tuple[Prefix, ...] = Field((), description="Who is answered, besides the cluster's own nodes.")


class Check(Model):
    """How a server of a pool is checked, by HAProxy, or by the L4 nodes when it answers clients directly."""

    type: Literal["http", "tcp"] = Field("http", description="http: a 2xx or 3xx answer; tcp: a connection.")
    path: UriPath = Field("/", description="What an http check asks for.")
    method: Literal["GET", "HEAD", "OPTIONS"] = Field("GET", description="How HAProxy asks for it.")
    host: Hostname | None = Field(None, description="The Host header of HAProxy's http check.")
    status: tuple[Status, ...] = Field(("2xx", "3xx"), min_length=1, description="What HAProxy takes for up.")
    port: Port | None = Field(None, description="Where HAProxy checks; the pool's port if left out.")
    timeout_s: Seconds = Field(2.0, description="Seconds that HAProxy waits for an answer.")
    interval_s: Seconds = Field(2.0, description="Seconds from one check to the next.")
    rise: Streak = Field(2, description="Successes in a row until a server is up.")
    fall: Streak = Field(3, description="Failures in a row until a server is down.")


class Pool(Model):
    """Servers that can stand in for each other."""

    nodes: tuple[Name, ...] | None = Field(None, min_length=1, description="Backend nodes; all of them if left out.")
    tags: tuple[Name, ...] = Field((), description="Instead of `nodes`: the backend nodes that have all of these tags.")
    dns: FromDns = Field(FromDns(), description="Instead of `nodes`: servers that HAProxy finds; through l7 only.")
    port: Port = Field(80, description="The port that HAProxy connects to; through backend: the port that is checked.")
    check: Check = Field(Check(), description="How a server is checked.")
    agent_check: Flag = Field(True, description="Whether HAProxy asks the servers' agent-check responders.")
    backup: tuple[Name, ...] = Field((), description="Those of its nodes that serve only when no other can.")
    slow_start_s: Annotated[int, Between(0, 3600)] = Field(
        0, description="Seconds in which a server that has come back gets its full share of HAProxy's requests."
    )
    max_connections: Annotated[int, Between(1, 1000000)] | None = Field(
        None,
        description="Connections of one HAProxy to one server; more requests wait in a queue. No limit if left out.",
    )
    protocol: Literal["http1", "h2"] = Field(
        "http1", description="What its servers speak; h2 is HTTP/2 without upgrade, also without TLS, as gRPC wants it."
    )
    tls: ServerTls = Field(ServerTls(), description="TLS towards its servers.")
    proxy_protocol: Literal["none", "v1", "v2"] = Field(
        "none", description="Whether its servers are told the client's address by the PROXY protocol, also in checks."
    )


class ServiceProbe(Model):
    """What L4 nodes ask of every real server of a service, at one of its VIPs."""

    type: Literal["health", "http", "https", "tcp", "script"] = Field(
        "health",
        description="health: nothing of its own (the health URI of L7 nodes; through backend, the pool's check); "
        "script: a program whose exit status 0 means up; the others besides the health URI, or instead of the pool's "
        "check.",
    )
    port: Port | None = Field(None, description="TCP port; the service's first one if left out.")
    path: UriPath = Field("/", description="What http and https ask for.")
    host: Name | None = Field(None, description="Host header, and the name for TLS; the address if left out.")
    status: tuple[Status, ...] = Field(("2xx", "3xx"), min_length=1, description="The HTTP statuses that mean up.")
    body: Text | None = Field(None, description="A text that the first 64 KiB of the answer must hold.")
    verify: Flag = Field(False, description="Whether the certificate must be valid for `host`.")
    script: tuple[Program, ...] = Field(
        (),
        max_length=1,
        description="The program, by absolute path; it finds address, port and family in its environment.",
    )


class Balancing(Model):
    """How IPVS treats a service's packets on the L4 nodes."""

    scheduler: Scheduler = Field("mh", description="Who gets a new flow; only mh keeps flows when ECMP moves them.")
    flags: tuple[Flags, ...] | None = Field(
        None,
        description="The scheduler's own flags; if left out, those that lose no flow: mh-fallback and mh-port, or "
        "sh-fallback and sh-port.",
    )
    one_packet: Flag = Field(False, description="UDP only: every datagram is scheduled by itself.")
    persistence_s: Idle | None = Field(
        None, description="Seconds for which a client's new flows follow its last one; not at all if left out."
    )
    persistence_ipv4_prefix: Annotated[int, Between(1, 32)] = Field(
        32, description="How much of an IPv4 address makes a client."
    )
    persistence_ipv6_prefix: Annotated[int, Between(1, 128)] = Field(
        128, description="How much of an IPv6 address makes a client."
    )
    forwarding: Literal["tunnel", "route", "masquerade"] = Field(
        "tunnel",
        description="tunnel and route: the real server answers the client itself; masquerade: through this L4 node, on "
        "the pool's port.",
    )
    tunnel: Literal["ipip", "gue", "gre"] = Field("ipip", description="What the packets are wrapped in.")
    tunnel_port: Port = Field(6080, description="UDP port of gue.")
    tunnel_checksum: Literal["none", "full", "remote"] = Field("none", description="Checksum of gue and gre.")
    max_connections: Count = Field(0, description="A real server with so many takes no new ones; 0: no limit.")
    resume_connections: Count = Field(0, description="It takes new ones again below so many; 0: three quarters of it.")
    mark: Annotated[int, Between(1, 4294967295)] | None = Field(
        None,
        description="Firewall mark: all VIPs of a family and all ports make one virtual service, so that a client with "
        "persistence gets the same real server on all of them.",
    )


class Access(Model):
    """Who may reach a service, enforced on the L4 nodes."""

    allow: tuple[Prefix, ...] | None = Field(None, min_length=1, description="Source networks; any if left out.")
    syn_per_s: Annotated[int, Between(1, 1000000)] | None = Field(
        None, description="New TCP connections per second and VIP that an L4 node lets through; any number if left out."
    )
    syn_burst: Annotated[int, Between(1, 1000000)] = Field(100, description="How many more may come at once.")


class Service(Model):
    """One service: where clients find it, and who answers."""

    vips: tuple[IPAddress, ...] = Field(min_length=1, description="The service's addresses, of either family.")
    ports: tuple[Port, ...] = Field((80,), min_length=1, description="The ports clients connect to.")
    protocol: Literal["tcp", "udp", "sctp"] = Field("tcp", description="udp and sctp: through backend only.")
    pool: Name = Field(description="The pool that serves it.")
    through: Literal["l7", "backend"] = Field(
        "l7", description="l7: HAProxy on every L7 node; backend: the pool's nodes answer, on the service's own ports."
    )
    announce: Literal["l4", "backend"] = Field(
        "l4",
        description="l4: the L4 nodes announce its VIPs and spread its packets; backend: the pool's nodes announce "
        "them, each by its own check, and routers spread the packets.",
    )
    attributes: Attributes = Field(Attributes(), description="What its VIPs are announced with.")
    mode: Literal["http", "tcp"] = Field("http", description="What HAProxy understands of it; through l7 only.")
    balance: Literal["roundrobin", "leastconn", "random", "first", "source", "uri", "header"] = Field(
        "roundrobin",
        description="How HAProxy spreads it over the pool; through l7 only. source, uri and header are consistent "
        "hashes: a server that comes or goes moves its own share alone.",
    )
    balance_header: Token | None = Field(None, description="The request header that `balance: header` looks at.")
    sticky_cookie: Token | None = Field(
        None, description="A cookie of this name keeps a client at its server; none if left out."
    )
    tls: Tls = Field(Tls(), description="TLS towards clients; through l7 only.")
    routes: Named[Route] = Field(default_factory=InOrder, description="Requests that go to other pools, by name.")
    clients: Clients = Field(Clients(), description="Whom HAProxy serves, and how much.")
    accept_proxy: tuple[Prefix, ...] = Field(
        (), description="Who speaks the PROXY protocol to HAProxy: proxies that tell the client's address."
    )
    forwarded: Literal["replace", "append", "none"] = Field(
        "replace",
        description="X-Forwarded-For, -Proto, -Port and -Host to servers: replace what clients say; append to it, "
        "where clients are trusted proxies; or none.",
    )
    timeouts: Timeouts = Field(Timeouts(), description="How long HAProxy waits.")
    pages: tuple[Page, ...] = Field(
        (),
        description="Files on every L7 node that HAProxy answers instead of its own error pages, each named by its "
        "status: `/etc/lb/pages/503.html`.",
    )
    maintenance: Flag = Field(False, description="Whether it answers everybody 503 (in mode tcp: not at all).")
    maintenance_page: FilePath | None = Field(None, description="HTML file on every L7 node that is then answered.")
    compression: Flag = Field(False, description="Whether HAProxy compresses texts that servers send uncompressed.")
    raw: RawService = Field(RawService(), description="Lines of haproxy.cfg as they are.")
    quorum: Annotated[int, Between(1, 65535)] = Field(
        1, description="How many real servers must be up for an L4 node to announce its VIPs."
    )
    quorum_high: Annotated[int, Between(1, 65535)] | None = Field(
        None, description="How many must be up until it announces again what it withdrew; as `quorum` if left out."
    )
    below_quorum: Literal["withdraw", "keep"] = Field(
        "withdraw", description="keep: go on announcing, and use all real servers as if they were up."
    )
    panic_percent: Annotated[int, Between(0, 100)] = Field(
        0, description="With a smaller share of its real servers up, the checks are not believed: all are used."
    )
    slow_start_s: Annotated[int, Between(0, 3600)] = Field(
        0, description="Seconds in which a real server that has come back gets its full share; not with mh, sh, dh."
    )
    probe: ServiceProbe = Field(ServiceProbe(), description="What L4 nodes ask of its real servers.")
    ipvs: Balancing = Field(Balancing(), description="How IPVS treats its packets.")
    access: Access = Field(Access(), description="Who may reach it.")


class Tunnel(Model):
    """The way from L4 nodes to real servers."""

    mtu: Annotated[int, Between(1280, 9216)] = Field(1500, description="MTU between L4 nodes and real servers, bytes.")
    only_from_l4: Flag = Field(
        True,
        description="Whether real servers drop tunnelled packets that come from elsewhere than the L4 nodes, or other "
        "real servers that give a flow its second chance.",
    )
    clamp_mss: Flag = Field(True, description="Whether real servers tell clients an MSS that leaves room for a tunnel.")


class Metrics(Model):
    """What agents tell monitoring, by HTTP, on their nodes' own addresses."""

    port: Annotated[int, Between(0, 65535)] = Field(9478, description="TCP port; 0: do not listen.")
    allow: tuple[Prefix, ...] = Field((), description="Who may ask, besides the cluster's own nodes.")


class Cluster(Model):
    """The cluster file."""

    bgp: Bgp = Field(description="How VIPs are announced.")
    nodes: Named[Node] = Field(
        min_length=1, description="Every machine, by host name; append new ones, for their order counts."
    )
    services: Named[Service] = Field(default_factory=InOrder, description="What clients reach, by name.")
    pools: Named[Pool] = Field(default_factory=InOrder, description="Who serves, by name.")
    probe: Probe = Field(Probe(), description="How L4 nodes probe real servers.")
    ipvs: Ipvs = Field(Ipvs(), description="How long IPVS remembers an idle flow.")
    tunnel: Tunnel = Field(Tunnel(), description="The way from L4 nodes to real servers.")
    second_chance: SecondChance = Field(
        SecondChance(), description="What becomes of a flow that comes to a real server which does not know it."
    )
    metrics: Metrics = Field(Metrics(), description="What agents tell monitoring.")
    haproxy: Haproxy = Field(Haproxy(), description="HAProxy on the L7 nodes.")
    health: HealthUri = Field(HealthUri(), description="The health URI of L7 nodes.")
    agent_check: AgentCheck = Field(AgentCheck(), description="The agent-check responders.")
    dns: Dns | None = Field(None, description="Names for VIPs, and the DNS servers that answer for them.")

    @property
    def balanced(self) -> dict[str, Service]:
        """The services whose packets come by the L4 nodes, by name."""
        return {name: service for name, service in self.services.items() if service.announce == "l4"}

    def announced_by(self, node_name: str) -> dict[str, Service]:
        """The services whose VIPs a node announces, by name."""
        if self.nodes[node_name].role == "l4":
            return self.balanced
        return {
            name: service
            for name, service in self.services.items()
            if service.announce == "backend" and node_name in self.members(service.pool)
        }

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each node stands in the file."""
        return {name: place for place, name in enumerate(self.nodes)}

    def with_role(self, role: Role) -> dict[str, Node]:
        """The nodes of one role, by name, in canonical order: by serial, or as they stand in the file."""
        found = ((name, node) for name, node in self.nodes.items() if node.role == role)
        return dict(sorted(found, key=lambda item: item[1].serial or 0))

    def members(self, pool: str) -> dict[str, Node]:
        """The nodes of a pool, by name, in canonical order."""
        found = self.pools[pool]
        if found.dns.name is not None:
            return {}
        if found.nodes is None:
            everyone = self.with_role("backend")
        else:
            named = {name: self.nodes[name] for name in found.nodes if name in self.nodes}
            backends = [(name, node) for name, node in named.items() if node.role == "backend"]
            everyone = dict(sorted(backends, key=lambda item: (item[1].serial or 0, self.places[item[0]])))
        wanted = set(found.tags)
        return {name: node for name, node in everyone.items() if wanted <= set(node.tags)} if wanted else everyone

    def pools_of(self, service: Service) -> tuple[str, ...]:
        """The pools that HAProxy sends a service's requests to, each once; its own first."""
        return tuple(dict.fromkeys((service.pool, *(route.pool for route in service.routes.values()))))

    def real_servers(self, service: Service) -> dict[str, Node]:
        """The nodes that L4 nodes send a service's packets to, by name, in canonical order."""
        return self.with_role("l7") if service.through == "l7" else self.members(service.pool)
