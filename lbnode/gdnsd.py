"""The files of a DNS server of the fourth tier: gdnsd's configuration and its zone. PURE.

A name is answered with the VIPs of its services. gdnsd (3.x) asks each VIP what a client would ask, along the way that
clients' packets go, and leaves out those that do not answer; an operator takes one out by hand in a file that gdnsd
follows. When none is left it answers with all: a wrong check must not make a name disappear.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lbnode.config.dns import Dns
from lbnode.config.model import Cluster, IPAddress, Service
from lbnode.errors import Missing
from lbnode.paths import Paths
from lbnode.templates import Templates

CONFIG, ZONE = "gdnsd.conf.j2", "gdnsd.zone.j2"
OPERATOR = "operator"
"""The service type that the operator's file stands behind; every address has it."""

FAMILIES: tuple[Literal[4, 6], ...] = (4, 6)


@dataclass(frozen=True)
class CheckView:
    """One way to check VIPs, a service type of gdnsd's."""

    type: Literal["http", "tcp"]
    port: int

    @property
    def name(self) -> str:
        return f"{self.type}-{self.port}"


@dataclass(frozen=True)
class NameView:
    """One name, a resource of gdnsd's: the service types behind its VIPs, and these by family, with a label each."""

    name: str
    checks: tuple[str, ...]
    vips: Mapping[int, Mapping[str, IPAddress]]


def config(templates: Templates, cluster: Cluster, server: str, paths: Paths) -> str:
    """gdnsd's file `config` on one DNS server. Raises Missing when the cluster file has no such server, LbnodeError
    when the template is wrong."""
    dns = _dns(cluster)
    if server not in dns.servers:
        known = ", ".join(dns.servers)
        raise Missing(f"cannot render gdnsd's configuration for {server}: choose a DNS server with --node: {known}")
    checks = {name: check for name in dns.names if (check := _check(cluster, dns, name)) is not None}
    return templates.render(
        CONFIG,
        server=server,
        listen=dns.servers[server].addresses,
        check=dns.check,
        path=quoted(dns.check.path),
        checks=list(dict.fromkeys(checks.values())),
        operator=OPERATOR,
        operator_file=quoted(str(paths.dns_addresses)),
        names=[_name(cluster, dns, name, checks.get(name)) for name in dns.names],
    )


def zone(templates: Templates, cluster: Cluster) -> str:
    """The zone file, the same on every DNS server; its name is that of the zone. Raises as `config` does."""
    dns = _dns(cluster)
    names = {name: resource(name) for name in dns.names}
    return templates.render(ZONE, zone=dns.zone, ttl=dns.ttl_s, servers=dns.servers, names=names)


def resource(name: str) -> str:
    """What gdnsd's configuration calls a name of the zone: never one of its own words, such as `service_types`."""
    return "zone" if name == "@" else f"name-{name}"


def quoted(text: str) -> str:
    """A string of gdnsd's configuration language (gdnsd.config(5), low-level syntax)."""
    inside = (char if " " <= char <= "~" and char not in '"\\' else _escaped(char) for char in text)
    return f'"{"".join(inside)}"'


def _escaped(char: str) -> str:
    """`\\DDD`, byte by byte."""
    return "".join(f"\\{byte:03d}" for byte in char.encode())


def _dns(cluster: Cluster) -> Dns:
    if cluster.dns is None:
        raise Missing("cannot render gdnsd's files: the cluster file has no section dns")
    return cluster.dns


def _services(cluster: Cluster, dns: Dns, name: str) -> dict[str, Service]:
    return {service: cluster.services[service] for service in dns.names[name].services}


def _check(cluster: Cluster, dns: Dns, name: str) -> CheckView | None:
    """How the VIPs of a name are checked; None when they cannot be. All its services are at one port (crosscheck)."""
    services = _services(cluster, dns, name).values()
    if any(service.protocol != "tcp" for service in services):
        return None
    port = next(iter(services)).ports[0]
    http = all(_speaks_http(cluster, service) for service in services)
    return CheckView("http" if http else "tcp", port)


def _speaks_http(cluster: Cluster, service: Service) -> bool:
    """In clear, and without sending clients elsewhere: gdnsd knows no TLS."""
    if service.through == "l7":
        return service.mode == "http" and not service.tls.certificates
    return cluster.pools[service.pool].check.type == "http"


def _name(cluster: Cluster, dns: Dns, name: str, check: CheckView | None) -> NameView:
    vips: dict[int, dict[str, IPAddress]] = {}
    for version in FAMILIES:
        labels: dict[str, IPAddress] = {}
        for label, service in _services(cluster, dns, name).items():
            own = (vip for vip in service.vips if vip.version == version)
            labels |= {f"{label}-{number}": vip for number, vip in enumerate(own, start=1)}
        if labels:
            vips[version] = labels
    return NameView(resource(name), (*([check.name] if check else []), OPERATOR), vips)
