"""Machines, and what listens on them beside the services. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.bgp import Attributes
from lbnode.config.frozen import Model
from lbnode.config.numbers import Between
from lbnode.config.values import IPAddress, Ipv4, Ipv6, Name, Port, Prefix, Seconds, UriPath

Role = Literal["l4", "l7", "backend"]


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


class HealthUri(Model):
    """The URI on which an L7 node says whether it can serve."""

    port: Port = Field(5580, description="TCP port of the health URI on the L7 node's own addresses.")
    path: UriPath = Field("/healthcheck", description="Path of the health URI.")


class AgentCheck(Model):
    """The agent-check responder of L7 and backend nodes."""

    port: Port = Field(5555, description="TCP port of the agent-check responder.")
    interval_s: Seconds = Field(2.0, description="Seconds between HAProxy's agent checks.")
    allow: tuple[Prefix, ...] = Field((), description="Who is answered, besides the cluster's own nodes.")


class Metrics(Model):
    """What agents tell monitoring, by HTTP, on their nodes' own addresses."""

    port: Annotated[int, Between(0, 65535)] = Field(9478, description="TCP port; 0: do not listen.")
    allow: tuple[Prefix, ...] = Field((), description="Who may ask, besides the cluster's own nodes.")
