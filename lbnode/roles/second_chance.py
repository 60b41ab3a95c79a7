"""What gives flows a second chance on a real server: the classifier, what it knows, and where it runs. PURE.

It knows of the services whose packets come in the plain tunnel and are placed by the Maglev hash: anything else has no
table to look into (other schedulers, persistence, UDP), or an outer header that it does not read (GUE, GRE, none).
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Literal

from lbnode import maglev
from lbnode.chance import layout
from lbnode.chance.generations import Generation, generation_of
from lbnode.config.model import Cluster, Service
from lbnode.maglev import MH_PORT, Server
from lbnode.resources import (
    ANY,
    ChanceEndpoint,
    ChanceFilter,
    ChanceOwn,
    ChancePeer,
    ChanceTable,
    Classifier,
    Row,
    ServiceKey,
)
from lbnode.roles import virtual_services
from lbnode.roles.inputs import Desired, Inputs, Verdict
from lbnode.roles.prober import FAMILIES

GROUPS = 256
"""The classifier has room for so many tables."""
KIND = "second chance"

Generations = tuple[Generation, ...]
Groups = dict[Generations, list[tuple[Service, ServiceKey]]]


def covered(service: Service) -> bool:
    """Whether flows to this service can have a second chance at all."""
    ipvs = service.ipvs
    plain = ipvs.forwarding == "tunnel" and ipvs.tunnel == "ipip"
    return plain and service.protocol == "tcp" and ipvs.scheduler == "mh" and not ipvs.persistence_s


def desired(inputs: Inputs, services: Iterable[Service]) -> Desired:
    """The rows for those of the services that can have it, and what became of it in words."""
    some = [service for service in services if covered(service)]
    if not inputs.cluster.second_chance.enabled:
        return Desired(verdicts=(_verdict(inputs, "off", "second_chance.enabled is false"),))
    if not some:
        return Desired()
    if problem := _problem(inputs):
        return Desired(verdicts=(_verdict(inputs, "not possible", problem, good=False),))
    groups = _groups(inputs, some)
    rows: list[Row] = [Classifier(inputs.chance.program)]
    rows += _tables(inputs, groups)
    rows += [ChancePeer(address, "l4") for address in _addresses(inputs.cluster, inputs.cluster.with_role("l4"))]
    rows += [ChancePeer(address, "real-server") for address in _others(inputs, some, groups)]
    rows += [ChanceOwn(v, str(inputs.node.address(v))) for v in FAMILIES if inputs.node.address(v) is not None]
    rows += [ChanceFilter(device, inputs.chance.program) for device in inputs.chance.devices]
    most = max((len(generations) for generations in groups), default=0)
    words = f"{len(groups)} tables, up to {most} generations; on {', '.join(inputs.chance.devices)}"
    if left_out := len(groups) - GROUPS:
        words += f"; no room for {left_out} tables more" if left_out > 0 else ""
    return Desired(tuple(rows), {}, (_verdict(inputs, "on", words),))


def relays(inputs: Inputs, services: Iterable[Service]) -> list[str]:
    """The addresses of real servers that may send flows on to this one, whatever its own kernel can do."""
    some = [service for service in services if covered(service)]
    return _others(inputs, some, _groups(inputs, some)) if inputs.cluster.second_chance.enabled else []


def _problem(inputs: Inputs) -> str:
    if inputs.chance.refused:
        return inputs.chance.refused
    return "" if inputs.chance.devices else "no Ethernet device has this node's own address"


def _verdict(inputs: Inputs, state: str, reason: str, good: bool = True) -> Verdict:
    return Verdict(KIND, inputs.name, good, state, reason)


def _groups(inputs: Inputs, services: Iterable[Service]) -> Groups:
    """The virtual services that share their generations stand together."""
    groups: Groups = {}
    for service in services:
        for version, key in virtual_services.keys(service):
            if inputs.node.address(version) is not None:
                known = inputs.past.generations(str(key)) or (by_file(inputs.cluster, service, version, key),)
                groups.setdefault(known, []).append((service, key))
    return groups


def by_file(cluster: Cluster, service: Service, version: Literal[4, 6], key: ServiceKey) -> Generation:
    """The table as the cluster file has it, with everybody up: what there is to go by before any L4 node has told."""
    servers = [
        Server(str(node.address(version)), key.real_port, node.weight, node.weight)
        for node in cluster.real_servers(service).values()
    ]
    return generation_of(maglev.build(servers, version, flags=virtual_services.flags(service)))


def _tables(inputs: Inputs, groups: Groups) -> Iterator[Row]:
    for number, (generations, members) in enumerate(list(groups.items())[:GROUPS]):
        content = _packed(generations, frozenset(inputs.past.failed))
        yield ChanceTable(number, hashlib.sha256(content).hexdigest()[:12], content)
        for service, key in members:
            by_port = MH_PORT in virtual_services.flags(service)
            yield from (ChanceEndpoint(endpoint, number, by_port) for endpoint in _endpoints(service, key))


def _endpoints(service: Service, key: ServiceKey) -> list[ServiceKey]:
    """Where the packets of a virtual service come to."""
    if key.protocol != "fwmark":
        return [key]
    vips = [vip for vip in service.vips if ANY[vip.version] == key.vip]
    return [endpoint for vip in vips for endpoint in virtual_services.endpoints(service, vip)]


@lru_cache(maxsize=64)
def _packed(generations: Generations, failed: frozenset[str]) -> bytes:
    return layout.pack(generations, failed)


def _addresses(cluster: Cluster, names: Iterable[str]) -> list[str]:
    nodes = [cluster.nodes[name] for name in names]
    return [str(address) for node in nodes for address in (node.ipv4, node.ipv6) if address is not None]


def _others(inputs: Inputs, services: Iterable[Service], groups: Collection[Generations]) -> list[str]:
    """The real servers of the file beside this one, and those that were."""
    cluster, node = inputs.cluster, inputs.node
    names = dict.fromkeys(name for service in services for name in cluster.real_servers(service))
    found = dict.fromkeys(_addresses(cluster, names))
    before = (one for generations in groups for generation in generations for one in generation.structure.servers)
    found.update(dict.fromkeys(server.address for server in before))
    return [address for address in found if address not in (str(node.ipv4), str(node.ipv6))]
