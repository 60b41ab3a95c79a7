"""The cluster file as values: what an operator writes, with the defaults filled in.

Every model is frozen and refuses unknown keys. What a field means to an operator is its `description`; the reference
page and the JSON Schema are made from it. Checks that need more than one field stand in `lbnode.config.crosscheck`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lbnode.config.values import (
    Asn,
    Between,
    Flag,
    Idle,
    InOrder,
    IPAddress,
    Ipv4,
    Ipv6,
    Name,
    Named,
    Port,
    Seconds,
    Streak,
    UriPath,
)

__all__ = [
    "AgentCheck",
    "Asn",
    "Bgp",
    "Check",
    "Cluster",
    "HealthUri",
    "IPAddress",
    "Ipvs",
    "Model",
    "Name",
    "Node",
    "Peer",
    "Pool",
    "Port",
    "Probe",
    "Role",
    "Seconds",
    "Service",
    "UriPath",
]

Role = Literal["l4", "l7", "backend"]


class Model(BaseModel):
    """Frozen, hashable, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(Model):
    """One machine."""

    role: Role = Field(description="What the machine does: l4, l7 or backend.")
    ipv4: Ipv4 | None = Field(None, description="Its own IPv4 address: BGP source, tunnel end, probe target.")
    ipv6: Ipv6 | None = Field(None, description="Its own IPv6 address, likewise.")
    weight: Annotated[int, Between(1, 1000)] = Field(100, description="Its share of new flows among its peers.")

    def address(self, version: int) -> IPAddress | None:
        return self.ipv4 if version == 4 else self.ipv6


class Peer(Model):
    """One BGP peer of every L4 node. It carries the family of its address."""

    address: IPAddress = Field(description="The peer's address; its family is the family announced to it.")
    asn: Asn = Field(description="The peer's autonomous system number.")


class Bgp(Model):
    """How L4 nodes announce VIPs."""

    local_asn: Asn = Field(description="The autonomous system of the L4 nodes.")
    hold_time_s: Annotated[int, Between(3, 65535)] = Field(9, description="BGP hold time, seconds.")
    peers: Named[Peer] = Field(min_length=1, description="The routers or route reflectors, by name.")


class Probe(Model):
    """How L4 nodes probe real servers."""

    interval_s: Seconds = Field(1.0, description="Seconds from one probe to the next.")
    timeout_s: Seconds = Field(1.0, description="Seconds after which a probe has failed; it may exceed the interval.")
    rise: Streak = Field(2, description="Successes in a row until a server is up.")
    fall: Streak = Field(2, description="Failures in a row until a server is down.")


class Ipvs(Model):
    """How long IPVS on the L4 nodes remembers a flow that is idle; it holds for everything that uses IPVS there."""

    tcp_timeout_s: Idle = Field(
        3900,
        description="Seconds for an open TCP flow: longer than the longest idle time the real servers allow, or an "
        "idle flow of a drained server is reset when it speaks again.",
    )
    tcp_fin_timeout_s: Idle = Field(120, description="Seconds for a TCP flow that a side has ended.")
    udp_timeout_s: Idle = Field(300, description="Seconds for a UDP flow.")


class HealthUri(Model):
    """The URI on which an L7 node says whether it can serve."""

    port: Port = Field(5580, description="TCP port of the health URI on the L7 node's own addresses.")
    path: UriPath = Field("/healthcheck", description="Path of the health URI.")


class AgentCheck(Model):
    """The agent-check responder of L7 and backend nodes."""

    port: Port = Field(5555, description="TCP port of the agent-check responder.")
    interval_s: Seconds = Field(2.0, description="Seconds between HAProxy's agent checks.")


class Check(Model):
    """How a server of a pool is checked, by HAProxy, or by the L4 nodes when it answers clients directly."""

    type: Literal["http", "tcp"] = Field("http", description="http: a 2xx or 3xx answer; tcp: a connection.")
    path: UriPath = Field("/", description="What an http check asks for.")
    interval_s: Seconds = Field(2.0, description="Seconds from one check to the next.")
    rise: Streak = Field(2, description="Successes in a row until a server is up.")
    fall: Streak = Field(3, description="Failures in a row until a server is down.")


class Pool(Model):
    """Servers that can stand in for each other."""

    nodes: tuple[Name, ...] | None = Field(None, min_length=1, description="Backend nodes; all of them if left out.")
    port: Port = Field(80, description="The port that HAProxy connects to; through backend: the port that is checked.")
    check: Check = Field(Check(), description="How a server is checked.")
    agent_check: Flag = Field(True, description="Whether HAProxy asks the servers' agent-check responders.")


class Service(Model):
    """One service: where clients find it, and who answers."""

    vips: tuple[IPAddress, ...] = Field(min_length=1, description="The service's addresses, of either family.")
    ports: tuple[Port, ...] = Field((80,), min_length=1, description="The TCP ports clients connect to.")
    pool: Name = Field(description="The pool that serves it.")
    through: Literal["l7", "backend"] = Field(
        "l7", description="l7: HAProxy on every L7 node; backend: the pool's nodes answer, on the service's own ports."
    )
    mode: Literal["http", "tcp"] = Field("http", description="What HAProxy understands of it; through l7 only.")
    balance: Literal["roundrobin", "leastconn", "random", "source"] = Field(
        "roundrobin", description="How HAProxy spreads it over the pool; through l7 only."
    )
    quorum: Annotated[int, Between(1, 65535)] = Field(
        1, description="How many real servers must be up for an L4 node to announce its VIPs."
    )


class Cluster(Model):
    """The cluster file."""

    bgp: Bgp = Field(description="How L4 nodes announce VIPs.")
    nodes: Named[Node] = Field(
        min_length=1, description="Every machine, by host name; append new ones, for their order counts."
    )
    services: Named[Service] = Field(default_factory=InOrder, description="What clients reach, by name.")
    pools: Named[Pool] = Field(default_factory=InOrder, description="Who serves, by name.")
    probe: Probe = Field(Probe(), description="How L4 nodes probe real servers.")
    ipvs: Ipvs = Field(Ipvs(), description="How long IPVS remembers an idle flow.")
    health: HealthUri = Field(HealthUri(), description="The health URI of L7 nodes.")
    agent_check: AgentCheck = Field(AgentCheck(), description="The agent-check responders.")

    def with_role(self, role: Role) -> dict[str, Node]:
        """The nodes of one role, by name, in the order of the file: the canonical order of destinations."""
        return {name: node for name, node in self.nodes.items() if node.role == role}

    def members(self, pool: str) -> dict[str, Node]:
        """The nodes of a pool, by name, in the order of the file."""
        wanted = self.pools[pool].nodes
        return {name: node for name, node in self.with_role("backend").items() if wanted is None or name in wanted}

    def real_servers(self, service: Service) -> dict[str, Node]:
        """The nodes that L4 nodes send a service's packets to, by name, in canonical order."""
        return self.with_role("l7") if service.through == "l7" else self.members(service.pool)
