"""The whole cluster file, and what follows from its parts together. PURE."""

from functools import cached_property

from pydantic import Field

from lbnode.config.bgp import Bgp
from lbnode.config.dns import Dns
from lbnode.config.frozen import Model
from lbnode.config.http import Haproxy
from lbnode.config.inorder import InOrder
from lbnode.config.model.l4 import Ipvs, Probe, SecondChance, Tunnel
from lbnode.config.model.node import AgentCheck, HealthUri, Metrics, Node, Role
from lbnode.config.model.pool import Pool
from lbnode.config.model.service import Service
from lbnode.config.values import Named


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
