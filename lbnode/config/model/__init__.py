"""The cluster file as values: what an operator writes, with the defaults filled in.

Every model is frozen and refuses unknown keys. What a field means to an operator is its `description`; the reference
page and the JSON Schema are made from it. Checks that need more than one field stand in `lbnode.config.crosscheck`.
"""

from lbnode.config.bgp import Attributes, Bgp, Peer, Unnumbered
from lbnode.config.dns import Dns
from lbnode.config.frozen import Model
from lbnode.config.model.cluster import Cluster
from lbnode.config.model.l4 import Ipvs, Probe, SecondChance, Tunnel
from lbnode.config.model.node import AgentCheck, HealthUri, Metrics, Node, Role
from lbnode.config.model.pool import Check, Pool
from lbnode.config.model.service import Access, Balancing, Scheduler, Service, ServiceProbe
from lbnode.config.values import Asn, IPAddress, Name, Port, Seconds, UriPath

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
