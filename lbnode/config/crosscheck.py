"""What a cluster file says against itself, across services, pools and nodes. PURE.

The checks see a `Draft`, so that a file with other mistakes is checked as far as it is certain, in the same go. What
concerns addresses stands in `lbnode.config.addresses`.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from lbnode.config import addresses
from lbnode.config.draft import Draft, DraftPool, DraftService
from lbnode.config.model import Cluster
from lbnode.config.positions import Path
from lbnode.config.values import listed
from lbnode.config.words import Finding, Suggestions
from lbnode.impact import without_slots
from lbnode.maglev import SLOTS

V = TypeVar("V")
L7_ONLY = ("mode", "balance")


def findings(draft: Draft, suggestions: Suggestions) -> list[Finding]:
    """Every contradiction, each once, in no particular order."""
    found = list(addresses.findings(draft))
    found += _tiers(draft)
    found += _listeners(draft)
    found += _taken(draft)
    for service in draft.services.values():
        found += _service(draft, service, suggestions)
    for pool in draft.pools.values():
        found += _pool(draft, pool, suggestions)
    return found


def _tiers(draft: Draft) -> Iterator[Finding]:
    """Services need an L4 node; services through L7 need an L7 node."""
    if not draft.nodes_complete:
        return
    through_l7 = [service for service in draft.services.values() if service.through == "l7"]
    if draft.services and not draft.with_role("l4"):
        message = "no node has role l4 to take the services' packets"
        yield Finding(("services",), message, _add("l4"), at_key=True)
    if through_l7 and not draft.with_role("l7"):
        names = listed(service.name for service in through_l7)
        hint = f"{_add('l7')}, or set through: backend"
        yield Finding(through_l7[0].path, f"no node has role l7, which {names} needs", hint, at_key=True)


def _add(role: str) -> str:
    return f"add a node with role: {role}"


def _listeners(draft: Draft) -> Iterator[Finding]:
    """Both listen on an L7 node's own addresses."""
    if draft.health_port is not None and draft.health_port == draft.agent_port:
        message = f"the agent-check and the health URI both listen on port {draft.agent_port} of the L7 nodes"
        default = Cluster.model_fields["agent_check"].default.port
        section = "health" if draft.agent_port == default else "agent_check"
        yield Finding((section, "port"), message, "choose another port for one of them")


def _taken(draft: Draft) -> Iterator[Finding]:
    """A VIP and port belong to one service; within a service each is listed once."""
    owner: dict[tuple[object, int], tuple[str, Path]] = {}
    for service in draft.services.values():
        yield from _repeated(service.vips, "VIP {} is listed twice")
        yield from _repeated(service.ports, "port {} is listed twice")
        for path, vip in _once(service.vips):
            taken = {port: owner[vip, port] for _, port in service.ports if (vip, port) in owner}
            if taken:
                name, first = next(iter(taken.values()))
                ports = ", ".join(str(port) for port in taken)
                yield Finding(path, f"VIP {vip} port {ports} already belongs to service '{name}'", "", first=first)
            for _, port in service.ports:
                owner.setdefault((vip, port), (service.name, path))


def _once(items: tuple[tuple[Path, V], ...]) -> list[tuple[Path, V]]:
    """Without repetitions, in the order of the file."""
    first = {value: path for path, value in reversed(items)}
    return [(path, value) for path, value in items if first[value] == path]


def _repeated(items: Iterable[tuple[Path, object]], message: str) -> Iterator[Finding]:
    seen: dict[object, Path] = {}
    for path, value in items:
        if value in seen:
            yield Finding(path, message.format(value), "remove one", first=seen[value])
        seen.setdefault(value, path)


def _service(draft: Draft, service: DraftService, suggestions: Suggestions) -> Iterator[Finding]:
    if service.pool is not None and service.pool not in draft.pools and draft.pools_complete:
        hint = suggestions.hint(service.pool, draft.pools.keys(), "define it under pools")
        yield Finding((*service.path, "pool"), f"there is no pool '{service.pool}'", hint)
    if service.through == "backend":
        for key in L7_ONLY:
            if key in service.given:
                message = f"'{key}' has no effect on a service that goes through: backend"
                yield Finding((*service.path, key), message, "leave it out, or set through: l7", at_key=True)
    servers, complete = draft.real_servers(service)
    yield from _table(service, [node.weight for node in servers] if complete else [])
    if complete and servers and service.quorum is not None and service.quorum > len(servers):
        message = f"quorum {service.quorum} is more than service '{service.name}' has real servers"
        yield Finding((*service.path, "quorum"), message, f"use at most {len(servers)}")


def _table(service: DraftService, weights: list[int | None]) -> Iterator[Finding]:
    """Every real server must find a slot in the service's Maglev table."""
    known = [weight for weight in weights if weight is not None]
    if len(weights) > SLOTS:
        message = f"service '{service.name}' has {len(weights)} real servers, and a Maglev table has {SLOTS} slots"
        yield Finding(service.path, message, "split it, or use fewer and stronger servers", at_key=True)
    elif len(known) == len(weights) and (without := without_slots(known)):
        servers = f"{without} of the {len(weights)} real servers of service '{service.name}'"
        message = f"weights so uneven that {servers} would get no flow"
        yield Finding(service.path, message, "use weights with a large common divisor, such as 50 and 100", at_key=True)


def _pool(draft: Draft, pool: DraftPool, suggestions: Suggestions) -> Iterator[Finding]:
    if pool.nodes is None:
        if draft.nodes_complete and not draft.with_role("backend"):
            yield Finding(pool.path, f"pool '{pool.name}' has no node", _add("backend"), at_key=True)
        return
    names = [name for name, node in draft.nodes.items() if node.role in ("backend", None)]
    yield from _repeated(pool.nodes, "node '{}' is listed twice")
    for path, name in _once(pool.nodes):
        node = draft.nodes.get(name)
        if node is None and draft.nodes_known:
            yield Finding(path, f"there is no node '{name}'", suggestions.hint(name, names, "add it under nodes"))
        elif node is not None and node.role not in ("backend", None):
            yield Finding(path, f"node '{name}' is an {node.role} node, not a backend", "a pool holds backends")
