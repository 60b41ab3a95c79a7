"""What an L4 node asks of the real servers, and the way its questions go. PURE.

A probe goes the way of clients' packets: to a VIP, by IPVS, in the tunnel. As every real server must be asked and not
the one that the table chooses, each has a virtual service of its own, by a firewall mark that only probes carry, with
that real server as its only destination. One probe serves all services that need to know the same of the same server.

The agent-check is read at the real server's own address, in each family: it says what people want, and that the machine
lives when nothing comes back through the tunnel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal
from zlib import crc32

from lbnode.config.model import Cluster, IPAddress, Pool, Service
from lbnode.health.state import DIRECT_MARK, Probe
from lbnode.resources import PROBE_MARKS, Destination, DestinationOrder, Row, ServiceKey, VirtualService

METHODS = ("ipip", "gue", "gre", "route")
METHOD_SHIFT = 20
FAMILIES: tuple[Literal[4, 6], ...] = (4, 6)


@dataclass(frozen=True)
class Subject:
    """What services have in common that the same probes tell about: `name` and `service` are the first of them."""

    name: str
    version: Literal[4, 6]
    vip: IPAddress
    service: Service = field(compare=False, repr=False)


@dataclass(frozen=True)
class Prober:
    """The probes of one L4 node, by its name, in a cluster."""

    cluster: Cluster = field(repr=False)
    name: str
    _known: dict[tuple[Subject, str], tuple[Probe, ...]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def subjects(self) -> dict[tuple[str, int], Subject]:
        """By service and family: whose VIP is asked for it."""
        first: dict[object, Subject] = {}
        found: dict[tuple[str, int], Subject] = {}
        for name, service in self.cluster.balanced.items():
            for version in FAMILIES:
                vip = next((vip for vip in service.vips if vip.version == version), None)
                if vip is not None:
                    asked = _asked(name, service)
                    subject = first.setdefault((asked, version), Subject(name, version, vip, service))
                    found[name, version] = subject
        return found

    @cached_property
    def numbers(self) -> dict[str, int]:
        """A number of METHOD_SHIFT bits for every real server, for its marks: out of its name, so that one that comes
        or goes changes no other's; of two that would have the same, the later takes the next one."""
        found: dict[str, int] = {}
        taken: set[int] = set()
        for name in (*self.cluster.with_role("l7"), *self.cluster.with_role("backend")):
            number = crc32(name.encode()) % (1 << METHOD_SHIFT)
            while number in taken:
                number = (number + 1) % (1 << METHOD_SHIFT)
            found[name] = number
            taken.add(number)
        return found

    def health(self, service: str, server: str, version: Literal[4, 6]) -> tuple[Probe, ...]:
        """The probes that say whether a real server can take a service's flows of a family."""
        subject = self.subjects[service, version]
        if (subject, server) not in self._known:
            self._known[subject, server] = self._health(subject, server)
        return self._known[subject, server]

    def _health(self, subject: Subject, server: str) -> tuple[Probe, ...]:
        service, own = subject.service, service_probe(subject.service)
        found = []
        if service.through == "l7":
            uri = self.cluster.health
            found.append(self._probe(subject, server, Probe("http", "", uri.port, uri.path)))
        elif own is None:
            found.append(self._probe(subject, server, _check(self.cluster.pools[service.pool])))
        return (*found, self._probe(subject, server, own)) if own else tuple(found)

    def agent(self, server: str, version: Literal[4, 6]) -> Probe:
        """The probe that reads what people have set a real server to."""
        return Probe("agent", str(self.cluster.nodes[server].address(version)), self.cluster.agent_check.port)

    def _probe(self, subject: Subject, server: str, what: Probe) -> Probe:
        if not self.through_ipvs(subject.service):
            return replace(what, address=str(self.cluster.nodes[server].address(subject.version)), mark=DIRECT_MARK)
        own = str(self.cluster.nodes[self.name].address(subject.version))
        return replace(what, address=str(subject.vip), mark=self.mark(subject.service, server), source=own)

    def through_ipvs(self, service: Service) -> bool:
        """Whether its probes go the way of its packets. What is masqueraded goes to the server's own address anyhow."""
        return self.cluster.probe.via == "tunnel" and service.ipvs.forwarding != "masquerade"

    def mark(self, service: Service, server: str) -> int:
        return PROBE_MARKS | METHODS.index(method(service)) << METHOD_SHIFT | self.numbers[server]

    def probes(self) -> tuple[Probe, ...]:
        """Every probe this node must keep, once each, in the order of the file."""
        wanted: dict[Probe, None] = {}
        for (name, version), server in self._pairs():
            wanted[self.agent(server, version)] = None
            wanted.update(dict.fromkeys(self.health(name, server, version)))
        return tuple(wanted)

    def rows(self) -> tuple[Row, ...]:
        """The virtual services that carry the probes."""
        found: dict[ServiceKey, tuple[Row, ...]] = {}
        for (name, version), server in self._pairs():
            subject = self.subjects[name, version]
            if self.through_ipvs(subject.service):
                key = ServiceKey.of_mark(self.mark(subject.service, server), version)
                if key not in found:
                    address = str(self.cluster.nodes[server].address(version))
                    row = destination(key, subject.service, address, 1)
                    found[key] = (VirtualService(key, "rr", ()), row, DestinationOrder(key, (row.name,)))
        return tuple(row for rows in found.values() for row in rows)

    def _pairs(self) -> Iterator[tuple[tuple[str, Literal[4, 6]], str]]:
        seen: set[Subject] = set()
        for (name, version), subject in self.subjects.items():
            if subject not in seen:
                seen.add(subject)
                for server in self.cluster.real_servers(subject.service):
                    yield (name, 4 if version == 4 else 6), server


def method(service: Service) -> str:
    """One of METHODS, or masquerade."""
    return service.ipvs.tunnel if service.ipvs.forwarding == "tunnel" else service.ipvs.forwarding


def destination(key: ServiceKey, service: Service, address: str, weight: int, port: int = 0) -> Destination:
    """A real server's row as the service's settings want it; its place and table weight are left to fill in."""
    ipvs = service.ipvs
    wrapped = ipvs.forwarding == "tunnel" and ipvs.tunnel != "ipip"
    return Destination(
        key,
        address,
        weight,
        table_weight=weight,
        forwarding=ipvs.forwarding,
        tunnel=ipvs.tunnel if ipvs.forwarding == "tunnel" else "ipip",
        port=port if port != key.real_port else 0,
        tunnel_port=ipvs.tunnel_port if wrapped and ipvs.tunnel == "gue" else 0,
        tunnel_checksum=ipvs.tunnel_checksum if wrapped else "none",
    )


def service_probe(service: Service) -> Probe | None:
    """What the service wants to be asked, without an address yet; None when it wants nothing of its own."""
    probe = service.probe
    if probe.type == "health":
        return None
    asks = probe.type in ("http", "https")
    return Probe(
        probe.type,
        "",
        probe.port or service.ports[0],
        probe.path if asks else "",
        host=probe.host or "",
        status=probe.status if asks else ("2xx", "3xx"),
        body=probe.body or "",
        verify=probe.verify,
        script=probe.script[0] if probe.script else "",
    )


def _check(pool: Pool) -> Probe:
    return Probe(pool.check.type, "", pool.port, pool.check.path if pool.check.type == "http" else "")


def _asked(name: str, service: Service) -> object:
    """Equal for services that need to know the same of the same real servers."""
    way = (service.through, service.ipvs.forwarding, service.ipvs.tunnel, service.ipvs.tunnel_port)
    if service.probe.type != "health":
        return (name, *way)
    return way if service.through == "l7" else (*way, service.pool)
