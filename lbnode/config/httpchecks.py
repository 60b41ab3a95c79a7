"""What the settings for HAProxy of a service, and of a pool, say against each other. PURE.

A key that would have no effect is refused: who wrote it believes that it has.
"""

from collections.abc import Iterator

from lbnode.config.draft import Draft, DraftPool, DraftRoute, DraftService
from lbnode.config.positions import Path
from lbnode.config.words import Finding, Suggestions, repeated

HTTP_ONLY = ("sticky_cookie", "forwarded", "pages", "maintenance_page", "compression")
HTTP_BALANCE = ("uri", "header")
TLS_HTTP = ("http2", "redirect", "hsts_s")


def findings(draft: Draft, service: DraftService, suggestions: Suggestions) -> Iterator[Finding]:
    """Everything that is wrong with what HAProxy should do with one service."""
    if service.through != "l7":
        return
    yield from _mode(service)
    yield from _balance(service)
    yield from _tls(service)
    yield from _clients(service)
    yield from _routes(draft, service, suggestions)


def pool_findings(draft: Draft, pool: DraftPool) -> Iterator[Finding]:
    """Everything that is wrong with how HAProxy should use one pool."""
    yield from _found(draft, pool)
    known, complete = draft.members(pool.name)
    names = [node.name for node in known]
    yield from repeated(pool.backup, "node '{}' is listed twice")
    for path, name in pool.backup:
        if complete and name not in names:
            yield Finding(path, f"node '{name}' does not belong to pool '{pool.name}'", "a backup is one of its nodes")
    if complete and names and set(names) <= {name for _, name in pool.backup}:
        yield Finding((*pool.path, "backup"), "all of its nodes are backups", "leave one out", at_key=True)
    if pool.check["type"] == "tcp":
        for key in sorted(pool.check.given & {"method", "host", "status"}):
            message = f"'{key}' has no effect on a check of type tcp"
            yield Finding(pool.check.at(key), message, "leave it out, or set type: http", at_key=True)
    tls = pool.tls
    if tls["enabled"] is False:
        for key in sorted(tls.given - {"enabled"}):
            yield Finding(tls.at(key), f"'{key}' has no effect without TLS", "add enabled: true", at_key=True)
    elif tls["verify"] is False and "ca" in tls.given:
        yield Finding(tls.at("ca"), "'ca' has no effect without 'verify'", "leave one of them out", at_key=True)
    elif tls["enabled"] and tls["verify"] and "host" in tls.values and tls["host"] is None:
        message = "verify needs the name that the servers' certificates bear"
        yield Finding(tls.at("enabled"), message, "add host, or verify: false")


def _found(draft: Draft, pool: DraftPool) -> Iterator[Finding]:
    """Servers are found in one way."""
    if pool.tags and pool.nodes is not None:
        yield Finding((*pool.path, "tags"), "'tags' has no effect beside 'nodes'", "leave one of them out", at_key=True)
    if pool.dns["name"] is None:
        for key in sorted(pool.dns.given - {"name"}):
            yield Finding(pool.dns.at(key), f"'{key}' has no effect without 'name'", "add name", at_key=True)
        return
    for key, given in (("nodes", pool.nodes is not None), ("tags", pool.tags), ("backup", pool.backup)):
        if given:
            yield Finding((*pool.path, key), f"'{key}' has no effect beside 'dns'", "leave one out", at_key=True)
    for service in draft.services.values():
        if service.through == "backend" and service.pool == pool.name:
            message = f"service '{service.name}' goes through: backend, but pool '{pool.name}' is found by DNS"
            yield Finding(service.path, message, "set through: l7, or name the pool's nodes", at_key=True)
        elif pool.name in service.pools and "sticky_cookie" in service.given:
            message = f"'sticky_cookie' cannot be used with pool '{pool.name}', which is found by DNS"
            yield Finding((*service.path, "sticky_cookie"), message, "use balance: source", at_key=True)


def _mode(service: DraftService) -> Iterator[Finding]:
    if service.mode == "tcp":
        for key in HTTP_ONLY:
            if key in service.given:
                message = f"'{key}' has no effect in mode tcp"
                yield Finding((*service.path, key), message, "leave it out, or set mode: http", at_key=True)


def _balance(service: DraftService) -> Iterator[Finding]:
    path = (*service.path, "balance")
    if service.mode == "tcp" and service.balance in HTTP_BALANCE:
        yield Finding(path, f"balance {service.balance} needs mode http", "use source, or set mode: http")
    header = "balance_header" in service.given
    if service.balance == "header" and not header:
        yield Finding(path, "balance header needs the name of one", "add balance_header")
    elif header and service.balance not in ("header", None):
        message = f"'balance_header' has no effect with balance {service.balance}"
        yield Finding((*service.path, "balance_header"), message, "set balance: header", at_key=True)


def _tls(service: DraftService) -> Iterator[Finding]:
    tls = service.tls
    if tls["certificates"] == ():
        for key in sorted(tls.given - {"certificates"}):
            message = f"'{key}' has no effect without certificates"
            yield Finding(tls.at(key), message, "add certificates, or leave it out", at_key=True)
        return
    if not tls["certificates"]:
        return
    yield from repeated(_placed(tls.at("certificates"), tls["certificates"]), "certificate {} is listed twice")
    known = {port for _, port in service.ports}
    for place, port in enumerate(tls["ports"] or ()):
        if port not in known and known:
            path = tls.at("ports", place) if "ports" in tls.given else tls.path
            hint = f"add it to the service's ports, or set tls.ports: [{min(known)}]"
            yield Finding(
                path, f"TLS port {port} is none of the service's ports", hint, at_key="ports" not in tls.given
            )
    if service.mode == "tcp":
        for key in TLS_HTTP:
            if key in tls.given:
                yield Finding(tls.at(key), f"'{key}' has no effect in mode tcp", "leave it out", at_key=True)
    if "client_certificate" in tls.given and "client_ca" in tls.values and tls["client_ca"] is None:
        message = "'client_certificate' has no effect without 'client_ca'"
        yield Finding(tls.at("client_certificate"), message, "add client_ca, or leave it out", at_key=True)


def _clients(service: DraftService) -> Iterator[Finding]:
    clients = service.clients
    for key in ("allow", "deny"):
        yield from repeated(_placed(clients.at(key), clients[key] or ()), "network {} is listed twice")
    if "per_s" in clients.given and "requests" in clients.values and clients["requests"] is None:
        message = "'per_s' has no effect without 'requests'"
        yield Finding(clients.at("per_s"), message, "add requests, or leave it out", at_key=True)
    if clients["allow"]:
        families = {network.version for network in clients["allow"]}
        for version in sorted({vip.version for _, vip in service.vips} - families):
            message = f"nobody is served at the IPv{version} VIPs: no network of 'allow' is IPv{version}"
            yield Finding(clients.at("allow"), message, f"add one, or ['{'0.0.0.0/0' if version == 4 else '::/0'}']")


def _routes(draft: Draft, service: DraftService, suggestions: Suggestions) -> Iterator[Finding]:
    first: dict[tuple[str, str], Path] = {}
    for route in service.routes:
        if route.pool is not None and route.pool not in draft.pools and draft.pools_complete:
            hint = suggestions.hint(route.pool, draft.pools.keys(), "define it under pools")
            yield Finding((*route.path, "pool"), f"there is no pool '{route.pool}'", hint)
        if not route.hosts and not route.paths and route.complete:
            message = f"route '{route.name}' takes everything"
            yield Finding(route.path, message, "add hosts or paths, or make its pool the service's own", at_key=True)
        if service.mode == "tcp" and route.paths:
            yield Finding((*route.path, "paths"), "'paths' has no effect in mode tcp", "leave it out", at_key=True)
        for key, path in _keys(route):
            if key in first:
                yield Finding(path, f"host {key[0]} with path {key[1]} has a route already", "", first=first[key])
            first.setdefault(key, path)


def _keys(route: DraftRoute) -> Iterator[tuple[tuple[str, str], Path]]:
    """Every host with every path, and where to point to."""
    for host_path, host in route.hosts or ((route.path, "*"),):
        for path, under in route.paths or ((host_path, "/"),):
            yield (host, under.rstrip("/") or "/"), path


def _placed(path: Path, values: tuple[object, ...]) -> Iterator[tuple[Path, object]]:
    return (((*path, place), value) for place, value in enumerate(values))
