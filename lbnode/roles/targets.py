"""Which probes tell an L4 node about which real server, and what they say together. PURE.

One probe serves all services that need to know the same thing of the same server: an L7 node's health URI is asked once
per family, however many VIPs there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lbnode.config.model import Cluster, Node, Service
from lbnode.health.state import Health, Probe
from lbnode.maintenance.state import READY, AdminState, Mode


@dataclass(frozen=True)
class Standing:
    """What is known of one real server in one family: what people want, what probes found, what follows.

    There are two ways to leave. Who drains, and who says that it cannot serve, takes no new flows and keeps the old
    ones. Who is *failed*, because people say so or because nothing comes back from it, has them ended.
    """

    admin: AdminState
    up: bool
    reason: str
    silent: bool = False

    @property
    def failed(self) -> bool:
        """Whether the flows it has are to end at their next packet. A server that answers, be it with 503 or with a
        refused connection, ends its flows itself or still serves them: a drained L7 node's health URI is 503, and stays
        so for a moment after it is ready again."""
        return self.admin.mode is Mode.MAINT or self.silent

    def share(self, full: int) -> int:
        """The weight it holds its place in the Maglev table with, out of `full`, its weight in the cluster file."""
        # In tenths: the kernel cuts the greatest common divisor of all weights into at most 64 steps, and one server
        # at 99 among 30 at 100 would move a quarter of everybody's new flows. A share of 0 keeps the place.
        tenths = max(1, round(self.admin.percent / 10)) if self.admin.percent else 10
        return max(1, full * tenths // 10)

    def weight(self, full: int) -> int:
        """The share of new flows it gets."""
        serving = self.up and self.admin.mode is Mode.READY and self.admin.percent > 0
        return self.share(full) if serving else 0


def health_probe(cluster: Cluster, service: Service, node: Node, version: int) -> Probe:
    """The probe that says whether this real server can take this service's flows of this family (4 or 6)."""
    address = str(node.address(version))
    if service.through == "l7":
        return Probe("http", address, cluster.health.port, cluster.health.path)
    pool = cluster.pools[service.pool]
    return Probe(pool.check.type, address, pool.port, pool.check.path if pool.check.type == "http" else "")


def agent_probe(cluster: Cluster, node: Node) -> Probe:
    """The probe that reads what people have set this real server to."""
    return Probe("agent", str(node.ipv4 or node.ipv6), cluster.agent_check.port)


def probes(cluster: Cluster) -> tuple[Probe, ...]:
    """Every probe an L4 node must keep, once each, in the order of the file."""
    wanted: dict[Probe, None] = {}
    for service in cluster.services.values():
        for node in cluster.real_servers(service).values():
            wanted[agent_probe(cluster, node)] = None
            for vip in service.vips:
                wanted[health_probe(cluster, service, node, vip.version)] = None
    return tuple(wanted)


def standing(health: Mapping[Probe, Health], health_of: Probe, agent_of: Probe) -> Standing:
    """Both axes of one real server. What is not known yet counts as up: an L4 node that has just started must not
    empty a table that works."""
    found = health.get(health_of, Health())
    admin = health.get(agent_of, Health()).admin or READY
    up = found.up is not False
    silent = found.silent and not up
    if admin.mode is not Mode.READY:
        gone = f", and then {found.reason}" if silent else ""
        return Standing(admin, up, f"{admin} on the node itself{gone}", silent)
    share = f", {admin.percent}% asked for" if admin.percent != 100 else ""
    return Standing(admin, up, f"{'up' if up else 'down'}: {found.reason}{share}", silent)
