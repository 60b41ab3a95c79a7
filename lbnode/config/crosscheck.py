"""What a cluster file says against itself, across services, pools and nodes. PURE.

The checks see a `Draft`, so that a file with other mistakes is checked as far as it is certain, in the same go. What
concerns addresses stands in `lbnode.config.addresses`, one service in `services`, its IPVS settings in `balancing`,
what HAProxy does with it in `httpchecks`, who announces what to whom in `peering`.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import TypeVar

from lbnode.config import addresses, balancing, dnscheck, httpchecks, peering, services, speaking
from lbnode.config.draft import Draft, DraftNode, DraftPool
from lbnode.config.mistakes import listed
from lbnode.config.model import Cluster
from lbnode.config.positions import Path
from lbnode.config.words import Finding, Suggestions, repeated

V = TypeVar("V")


def findings(draft: Draft, suggestions: Suggestions) -> list[Finding]:
    """Every contradiction, each once, in no particular order."""
    found = list(addresses.findings(draft))
    found += speaking.findings(draft)
    found += _tiers(draft)
    found += _listeners(draft)
    found += _asked(draft)
    found += _gre(draft)
    found += _taken(draft)
    found += _marks(draft)
    found += dnscheck.findings(draft, suggestions)
    found += peering.findings(draft, suggestions)
    for role in ("l7", "backend"):
        found += _serials(draft, role)
    for node in draft.with_role("l4"):
        if node.serial:
            message = "'serial' has no effect on an L4 node"
            found.append(Finding((*node.path, "serial"), message, "leave it out", at_key=True))
    for service in draft.services.values():
        found += services.findings(draft, service, suggestions)
        found += balancing.findings(service)
        found += httpchecks.findings(draft, service, suggestions)
    for pool in draft.pools.values():
        found += _pool(draft, pool, suggestions)
        found += httpchecks.pool_findings(draft, pool)
    return found


def _tiers(draft: Draft) -> Iterator[Finding]:
    """Services need an L4 node; services through L7 need an L7 node."""
    if not draft.nodes_complete:
        return
    through_l7 = [service for service in draft.services.values() if service.through == "l7"]
    if any(service.announce == "l4" for service in draft.services.values()) and not draft.with_role("l4"):
        message = "no node has role l4 to take the services' packets"
        yield Finding(("services",), message, _add("l4"), at_key=True)
    if through_l7 and not draft.with_role("l7"):
        names = listed(service.name for service in through_l7)
        hint = f"{_add('l7')}, or set through: backend"
        yield Finding(through_l7[0].path, f"no node has role l7, which {names} needs", hint, at_key=True)


def _add(role: str) -> str:
    return f"add a node with role: {role}"


def _listeners(draft: Draft) -> Iterator[Finding]:
    """All of them listen on an L7 node's own addresses."""
    listeners = (
        (("agent_check", "port"), "the agent-check", draft.agent_port),
        (("health", "port"), "the health URI", draft.health_port),
        (("metrics", "port"), "metrics", draft.metrics_port),
        (("haproxy", "metrics_port"), "HAProxy's metrics", draft.proxy_metrics_port),
    )
    for (path, one, port), (other_path, other, same) in combinations(listeners, 2):
        if port and port == same:
            message = f"{one} and {other} both listen on port {port} of the L7 nodes"
            default = getattr(Cluster.model_fields[path[0]].default, path[1])
            yield Finding(other_path if port == default else path, message, "choose another port for one of them")


def _asked(draft: Draft) -> Iterator[Finding]:
    """HAProxy answers for the health URI at VIPs too, on its port."""
    for service in draft.services.values():
        for path, port in service.ports:
            if port == draft.health_port and service.through == "l7":
                message = f"port {port} is the health URI's on VIPs through l7"
                yield Finding(path, message, "choose another one for health", at_key=len(path) == len(service.path))


def _gre(draft: Draft) -> Iterator[Finding]:
    """A real server has one GRE device, which takes packets either with or without a checksum."""
    found = [service for service in draft.services.values() if service.ipvs["tunnel"] == "gre"]
    for service in found[1:]:
        first, own = (one.ipvs["tunnel_checksum"] for one in (found[0], service))
        if first is not None and own is not None and (first == "full") != (own == "full"):
            message = f"real servers take gre either with a checksum or without; service '{found[0].name}' has {first}"
            path = service.ipvs.at("tunnel_checksum")
            yield Finding(path, message, "use the same tunnel_checksum for both", at_key=True)


def _serials(draft: Draft, role: str) -> Iterator[Finding]:
    """All nodes of a role have a serial, each its own, or none has."""
    nodes = draft.with_role(role)
    first: dict[int, DraftNode] = {}
    for node in nodes:
        if node.serial and node.serial in first:
            other = first[node.serial]
            message = f"serial {node.serial} already belongs to node '{other.name}'"
            hint = f"use {_free(nodes)}, the next free one"
            yield Finding((*node.path, "serial"), message, hint, first=(*other.path, "serial"))
        first.setdefault(node.serial or 0, node)
    numbered = [node for node in nodes if node.serial]
    lacking = [node for node in nodes if node.serial == 0]
    if numbered and len(lacking) <= len(numbered):
        for number, node in enumerate(lacking, start=_free(nodes)):
            message = f"node '{node.name}' has no serial, but other {role} nodes have one"
            yield Finding(node.path, message, f"add serial: {number}, the next free one", at_key=True)
    elif numbered:
        message = (
            f"{listed(node.name for node in numbered)} with a serial, but {len(lacking)} other {role} nodes without"
        )
        hint = "give every one a serial, or none: lowest first, in the order of the file"
        yield Finding((*numbered[0].path, "serial"), message, hint, at_key=True)


def _free(nodes: list[DraftNode]) -> int:
    return max((node.serial or 0 for node in nodes), default=0) + 1


def _marks(draft: Draft) -> Iterator[Finding]:
    """A firewall mark makes a virtual service: it belongs to one."""
    first: dict[int, tuple[str, Path]] = {}
    for service in draft.services.values():
        mark, path = service.ipvs["mark"], service.ipvs.at("mark")
        if mark in first:
            name, place = first[mark]
            yield Finding(path, f"mark {mark} already belongs to service '{name}'", "choose another", first=place)
        elif mark:
            first[mark] = (service.name, path)


def _taken(draft: Draft) -> Iterator[Finding]:
    """A VIP and port belong to one service per protocol; within a service each is listed once."""
    owner: dict[tuple[object, str | None, int], tuple[str, Path]] = {}
    for service in draft.services.values():
        yield from repeated(service.vips, "VIP {} is listed twice")
        yield from repeated(service.ports, "port {} is listed twice")
        for path, vip in _once(service.vips):
            ends = {port: (vip, service.protocol, port) for _, port in service.ports}
            taken = {port: owner[end] for port, end in ends.items() if end in owner}
            if taken:
                name, first = next(iter(taken.values()))
                ports = ", ".join(str(port) for port in taken)
                yield Finding(path, f"VIP {vip} port {ports} already belongs to service '{name}'", "", first=first)
            for end in ends.values():
                owner.setdefault(end, (service.name, path))


def _once(items: tuple[tuple[Path, V], ...]) -> list[tuple[Path, V]]:
    """Without repetitions, in the order of the file."""
    first = {value: path for path, value in reversed(items)}
    return [(path, value) for path, value in items if first[value] == path]


def _pool(draft: Draft, pool: DraftPool, suggestions: Suggestions) -> Iterator[Finding]:
    if pool.nodes is None:
        nodes, complete = draft.members(pool.name)
        if complete and not nodes:
            hint = "give a backend its tags" if pool.tags else _add("backend")
            yield Finding(pool.path, f"pool '{pool.name}' has no node", hint, at_key=True)
        return
    names = [name for name, node in draft.nodes.items() if node.role in ("backend", None)]
    yield from repeated(pool.nodes, "node '{}' is listed twice")
    for path, name in _once(pool.nodes):
        node = draft.nodes.get(name)
        if node is None and draft.nodes_known:
            yield Finding(path, f"there is no node '{name}'", suggestions.hint(name, names, "add it under nodes"))
        elif node is not None and node.role not in ("backend", None):
            yield Finding(path, f"node '{name}' is an {node.role} node, not a backend", "a pool holds backends")
