"""What HAProxy does with a service and with a pool's servers: the part of the cluster file that is tier 3's. PURE.

Everything has a default that is right for production, so that a service needs none of it. What its keys say against
each other is checked in `lbnode.config.httpchecks`.
"""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.frozen import Model
from lbnode.config.numbers import Between
from lbnode.config.values import (
    Directive,
    DnsName,
    FilePath,
    Flag,
    Hostname,
    HostPattern,
    IPAddress,
    Name,
    Port,
    Prefix,
    Seconds,
    UriPath,
)

Rate = Annotated[int, Between(1, 1000000)]
Connections = Annotated[int, Between(1, 1000000)]


class Tls(Model):
    """TLS towards clients. A service has it when it has certificates."""

    certificates: tuple[FilePath, ...] = Field(
        (),
        description="PEM files on every L7 node, each with certificate, chain and key; a client gets the one whose "
        "name it asks for (SNI), or the first.",
    )
    ports: tuple[Port, ...] = Field((443,), min_length=1, description="Which of the service's ports speak TLS.")
    min_version: Literal["TLSv1.2", "TLSv1.3"] = Field("TLSv1.2", description="The oldest version that is spoken.")
    http2: Flag = Field(True, description="Whether HTTP/2 is offered, besides HTTP/1.1.")
    redirect: Flag = Field(
        True, description="Whether requests to the other ports are sent to the first TLS port (308)."
    )
    hsts_s: Annotated[int, Between(0, 126144000)] = Field(
        0, description="For how many seconds browsers use TLS alone (Strict-Transport-Security); 0: not said."
    )
    client_ca: FilePath | None = Field(
        None, description="PEM file of the authorities that clients' certificates must come from; none are asked for."
    )
    client_certificate: Literal["required", "optional"] = Field(
        "required", description="Whether a client without a certificate is refused; with `client_ca`."
    )


class Route(Model):
    """Requests that go to another pool. The longest path wins; a host's own routes win over those of any host."""

    hosts: tuple[HostPattern, ...] = Field(
        (), description="Host names, or `*.example.com` for one label more; any if left out. In mode tcp: by SNI."
    )
    paths: tuple[UriPath, ...] = Field(
        (),
        description="Paths with all that is under them: `/api` is `/api` and `/api/v1`, not `/apis`; all if left out.",
    )
    pool: Name = Field(description="The pool that serves them.")


class Clients(Model):
    """Whom HAProxy serves, and how much each. (`access` refuses packets on the L4 nodes; this answers.)"""

    allow: tuple[Prefix, ...] = Field((), description="Who is served; everybody if left out. Others get 403.")
    deny: tuple[Prefix, ...] = Field((), description="Who is not, even if allowed.")
    requests: Rate | None = Field(
        None,
        description="How many requests (in mode tcp: connections) one client may make in `per_s` seconds; then 429. A "
        "client is an IPv4 address or an IPv6 /64.",
    )
    per_s: Annotated[int, Between(1, 3600)] = Field(10, description="Seconds over which they are counted.")


class Timeouts(Model):
    """How long HAProxy waits, in seconds."""

    connect_s: Seconds = Field(3.0, description="For a server to accept.")
    client_s: Seconds = Field(60.0, description="For a client to send or take more.")
    server_s: Seconds = Field(60.0, description="For a server to send or take more.")
    queue_s: Seconds = Field(10.0, description="In the queue for a server that has `max_connections`.")
    tunnel_s: Seconds = Field(3600.0, description="For either side of an idle WebSocket or TCP connection.")
    request_s: Seconds = Field(10.0, description="For a whole request header.")
    keep_alive_s: Seconds = Field(60.0, description="For the next request of a kept connection.")


class RawService(Model):
    """Lines of haproxy.cfg for what this file has no key for. They are not checked here, but by `haproxy -c`."""

    frontend_first: tuple[Directive, ...] = Field((), description="Before everything else in the frontend.")
    frontend: tuple[Directive, ...] = Field((), description="After everything else in the frontend.")
    backend: tuple[Directive, ...] = Field((), description="In each of its backends, before the servers.")


class Raw(Model):
    """Lines of haproxy.cfg for what this file has no key for, in the sections that all services share."""

    globals: tuple[Directive, ...] = Field((), description="At the end of section global.")
    defaults: tuple[Directive, ...] = Field((), description="At the end of section defaults.")


class Resolvers(Model):
    """Name servers that L7 nodes ask for the servers of pools with `dns`."""

    servers: tuple[IPAddress, ...] = Field((), description="Their addresses; those of /etc/resolv.conf if left out.")
    port: Port = Field(53, description="Their UDP port.")
    valid_s: Seconds = Field(10.0, description="For how long an answer is good; then they are asked again.")


class FromDns(Model):
    """Servers that are not nodes of this file, but found by DNS."""

    name: DnsName | None = Field(None, description="The name that HAProxy asks for; no DNS if left out.")
    type: Literal["A", "AAAA", "SRV"] = Field(
        "A", description="What it asks for; SRV says ports and weights too, for a name such as _http._tcp.example.com."
    )
    slots: Annotated[int, Between(1, 1000)] = Field(10, description="How many servers there may be at most.")


class Haproxy(Model):
    """HAProxy on the L7 nodes."""

    hard_stop_after_s: Annotated[int, Between(1, 604800)] = Field(
        600, description="How long sessions of an old process may last after a reload, seconds."
    )
    max_connections: Connections | None = Field(
        None, description="Connections of a node's clients, all together; as its open files allow if left out."
    )
    metrics_port: Annotated[int, Between(0, 65535)] = Field(
        9479,
        description="TCP port of HAProxy's own metrics on the node's addresses, for those who may ask the agent's; 0: "
        "on loopback alone.",
    )
    resolvers: Resolvers = Field(Resolvers(), description="Whom to ask for pools with `dns`.")
    access_log: Flag = Field(False, description="Whether every request is logged, and not only what goes wrong.")
    raw: Raw = Field(Raw(), description="Lines as they are.")


class ServerTls(Model):
    """TLS towards a pool's servers."""

    enabled: Flag = Field(False, description="Whether HAProxy speaks TLS with them.")
    verify: Flag = Field(True, description="Whether their certificates are verified.")
    ca: FilePath | None = Field(None, description="PEM file of the authorities; those of the system if left out.")
    host: Hostname | None = Field(None, description="The name to ask for (SNI), which the certificate must bear.")
