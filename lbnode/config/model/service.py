"""Services: where clients find them, who answers, and how their packets are treated. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.bgp import Attributes
from lbnode.config.frozen import Model
from lbnode.config.http import Clients, RawService, Route, Timeouts, Tls
from lbnode.config.inorder import InOrder
from lbnode.config.numbers import Between
from lbnode.config.values import (
    FilePath,
    Flag,
    Idle,
    IPAddress,
    Name,
    Named,
    Page,
    Port,
    Prefix,
    Program,
    Status,
    Text,
    Token,
    UriPath,
)

Scheduler = Literal[
    "mh", "sh", "dh", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sed", "nq", "fo", "ovf", "twos"
]  # net/netfilter/ipvs/Kconfig
Flags = Literal["mh-fallback", "mh-port", "sh-fallback", "sh-port"]
Count = Annotated[int, Between(0, 2147483647)]


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
