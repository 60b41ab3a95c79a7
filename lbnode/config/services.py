"""What one service of a cluster file says against itself, and against the nodes it has. PURE.

Its settings for IPVS stand in `lbnode.config.balancing`.
"""

from collections.abc import Iterator

from lbnode.config.draft import Draft, DraftService
from lbnode.config.words import Finding, Suggestions
from lbnode.impact import without_slots
from lbnode.maglev import SLOTS
from lbnode.resources import SH_SLOTS

TABLES = {"mh": ("a Maglev table", SLOTS), "sh": ("a table of sh", SH_SLOTS)}
L7_ONLY = (
    "mode", "balance", "balance_header", "sticky_cookie", "tls", "routes", "clients", "accept_proxy", "forwarded",
    "timeouts", "pages", "maintenance", "maintenance_page", "compression", "raw",
)  # fmt: skip
L4_ONLY = ("quorum", "quorum_high", "below_quorum", "panic_percent", "slow_start_s", "ipvs", "access")
HTTP = ("path", "host", "status", "body")
PROBE_KEYS: dict[str, tuple[str, ...]] = {
    "health": (),
    "tcp": ("port",),
    "http": ("port", *HTTP),
    "https": ("port", *HTTP, "verify"),
    "script": ("port", "script"),
}
"""What each type of probe heeds besides its type."""


def findings(draft: Draft, service: DraftService, suggestions: Suggestions) -> Iterator[Finding]:
    """Everything that is wrong with a service as such."""
    if service.pool is not None and service.pool not in draft.pools and draft.pools_complete:
        hint = suggestions.hint(service.pool, draft.pools.keys(), "define it under pools")
        yield Finding((*service.path, "pool"), f"there is no pool '{service.pool}'", hint)
    yield from _way(service)
    if service.announce == "l4":
        servers, complete = draft.real_servers(service)
        if complete:
            yield from _table(service, [node.weight for node in servers])
        yield from _quorum(service, len(servers) if complete else 0)
    yield from _probe(service)
    yield from _access(service)


def _way(service: DraftService) -> Iterator[Finding]:
    if service.through == "backend":
        for key in L7_ONLY:
            if key in service.given:
                message = f"'{key}' has no effect on a service that goes through: backend"
                yield Finding((*service.path, key), message, "leave it out, or set through: l7", at_key=True)
    if service.announce == "backend" and service.through == "l7":
        message = "a backend can only announce what it answers itself, not a service that goes through: l7"
        yield Finding((*service.path, "announce"), message, "set through: backend, or announce: l4")
    if service.announce == "backend":
        for key in L4_ONLY:
            if key in service.given:
                message = f"'{key}' has no effect on a service that its backends announce: no L4 node sees its packets"
                yield Finding((*service.path, key), message, "leave it out, or set announce: l4", at_key=True)
    if service.through == "l7" and service.protocol in ("udp", "sctp"):
        message = f"protocol {service.protocol} cannot go through: l7, for HAProxy takes TCP alone"
        yield Finding((*service.path, "protocol"), message, "set through: backend")


def _table(service: DraftService, weights: list[int | None]) -> Iterator[Finding]:
    """Every real server must find a slot in the service's table."""
    scheduler = service.ipvs["scheduler"]
    if scheduler not in TABLES:
        return
    known = [weight for weight in weights if weight is not None]
    table, slots = TABLES[scheduler]
    if len(weights) > slots:
        message = f"service '{service.name}' has {len(weights)} real servers, and {table} has {slots} slots"
        yield Finding(service.path, message, "split it, or use fewer and stronger servers", at_key=True)
    elif scheduler == "mh" and len(known) == len(weights) and (without := without_slots(known)):
        servers = f"{without} of the {len(weights)} real servers of service '{service.name}'"
        message = f"weights so uneven that {servers} would get no flow"
        yield Finding(service.path, message, "use weights with a large common divisor, such as 50 and 100", at_key=True)


def _quorum(service: DraftService, servers: int) -> Iterator[Finding]:
    """Both marks lie within the number of real servers (0: not known), the high one not under the low one."""
    low, high = service.quorum, service.quorum_high
    for key, mark in (("quorum", low), ("quorum_high", high)):
        if mark and servers and mark > servers:
            message = f"{key} {mark} is more than service '{service.name}' has real servers"
            yield Finding((*service.path, key), message, f"use at most {servers}")
    if low and high and high < low:
        message = f"quorum_high {high} is less than quorum, {low}"
        yield Finding((*service.path, "quorum_high"), message, "use at least that, or leave it out")


def _probe(service: DraftService) -> Iterator[Finding]:
    probe = service.probe
    kind = probe["type"]
    if kind is None:
        return
    for key in sorted(probe.given - {"type", *PROBE_KEYS[kind]}):
        fit = [other for other, keys in PROBE_KEYS.items() if key in keys]
        message = f"'{key}' has no effect on a probe of type {kind}"
        yield Finding(probe.at(key), message, f"leave it out, or set type: {' or '.join(fit)}", at_key=True)
    if kind == "script" and probe["script"] == ():
        yield Finding(probe.at("type"), "a probe of type script needs a script", "add script: [/usr/local/lib/probe]")


def _access(service: DraftService) -> Iterator[Finding]:
    access = service.access
    if access["allow"] and "allow" in access.given:
        families = {network.version for network in access["allow"]}
        for version in sorted({vip.version for _, vip in service.vips} - families):
            vip = next(vip for _, vip in service.vips if vip.version == version)
            message = f"nobody could reach VIP {vip}: no network of 'allow' is IPv{version}"
            yield Finding(access.at("allow"), message, f"add one, or ['{'0.0.0.0/0' if version == 4 else '::/0'}']")
    if access["syn_per_s"] and service.protocol in ("udp", "sctp"):
        message = f"'syn_per_s' has no effect on protocol {service.protocol}"
        yield Finding(access.at("syn_per_s"), message, "leave it out", at_key=True)
    if "syn_burst" in access.given and "syn_per_s" in access.values and access["syn_per_s"] is None:
        message = "'syn_burst' has no effect without 'syn_per_s'"
        yield Finding(access.at("syn_burst"), message, "add syn_per_s, or leave it out", at_key=True)
