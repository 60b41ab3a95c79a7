"""The virtual services that a service has on every L4 node: one per VIP and port, or one per family by firewall mark.
PURE."""

from collections.abc import Iterator
from typing import Literal

from lbnode.config.model import IPAddress, Service
from lbnode.resources import ServiceKey
from lbnode.roles.prober import FAMILIES

FLAGS = {"mh": ("mh-fallback", "mh-port"), "sh": ("sh-fallback", "sh-port")}


def keys(service: Service) -> Iterator[tuple[Literal[4, 6], ServiceKey]]:
    """Each with its family."""
    for version in FAMILIES:
        vips = [vip for vip in service.vips if vip.version == version]
        if service.ipvs.mark is not None and vips:
            yield version, ServiceKey.of_mark(service.ipvs.mark, version)
        elif service.ipvs.mark is None:
            yield from ((version, key) for vip in vips for key in endpoints(service, vip))


def endpoints(service: Service, vip: IPAddress) -> list[ServiceKey]:
    """Where clients connect to, at one VIP."""
    return [ServiceKey(str(vip), service.protocol, port) for port in service.ports]


def flags(service: Service) -> tuple[str, ...]:
    """The scheduler's own."""
    ipvs = service.ipvs
    return FLAGS.get(ipvs.scheduler, ()) if ipvs.flags is None else tuple(ipvs.flags)
