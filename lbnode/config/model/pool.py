"""Pools: servers that can stand in for each other, and how each is checked. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.frozen import Model
from lbnode.config.http import FromDns, ServerTls
from lbnode.config.numbers import Between
from lbnode.config.values import Flag, Hostname, Name, Port, Seconds, Status, Streak, UriPath


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
