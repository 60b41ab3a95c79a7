"""What a lab's cluster serves, as the lab's programs and eyes need to know it. PURE.

What goes by TCP the lab serves with web servers, on port 80; what goes by UDP with echo servers, on the service's port.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lbnode.config.model import Cluster

TCP, UDP = "tcp", "udp"


@dataclass(frozen=True)
class Served:
    """A VIP with a port, and the names of the machines that L4 nodes send its packets to."""

    vip: str
    port: int
    protocol: str
    through: str
    scheduler: str
    servers: tuple[str, ...]

    @property
    def version(self) -> int:
        return 6 if ":" in self.vip else 4


def served(cluster: Cluster, l7: Sequence[str] | None = None) -> list[Served]:
    """Everything, in the order of the file; with these L7 nodes when not with all."""
    found = []
    for service in cluster.services.values():
        every = tuple(cluster.real_servers(service))
        servers = every if l7 is None or service.through == "backend" else tuple(l7)
        for vip in service.vips:
            way = (service.protocol, service.through, service.ipvs.scheduler, servers)
            found += [Served(str(vip), port, *way) for port in service.ports]
    return found


def echo_ports(cluster: Cluster) -> dict[str, list[int]]:
    """By machine: the ports that it serves by UDP."""
    found: dict[str, list[int]] = {}
    for one in served(cluster):
        for name in one.servers if one.protocol == UDP else ():
            if one.port not in found.setdefault(name, []):
                found[name].append(one.port)
    return found
