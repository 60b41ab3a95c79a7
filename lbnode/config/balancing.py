"""What the IPVS settings of a service in a cluster file say against each other. PURE.

What a key would do is refused where the kernel would ignore it, refuse it, or do it differently on each L4 node.
"""

from collections.abc import Iterator

from lbnode.config.draft import DraftService
from lbnode.config.words import Finding, repeated
from lbnode.health.state import DIRECT_MARK
from lbnode.resources import PROBE_MARKS, ServiceKey

BY_TABLE = ("mh", "sh", "dh")
"""Schedulers that look a flow up in a table, which every change of a weight makes anew."""


def findings(service: DraftService) -> Iterator[Finding]:
    """Everything that is wrong with one service's section `ipvs`."""
    yield from _scheduler(service)
    yield from _persistence(service)
    yield from _forwarding(service)
    yield from _limits(service)


def _scheduler(service: DraftService) -> Iterator[Finding]:
    ipvs = service.ipvs
    scheduler = ipvs["scheduler"]
    flags = [(ipvs.at("flags", index), flag) for index, flag in enumerate(ipvs["flags"] or ())]
    yield from repeated(flags, "flag {} is listed twice")
    for path, flag in flags:
        owner = flag.partition("-")[0]
        if scheduler not in (None, owner):
            yield Finding(path, f"flag {flag} belongs to scheduler {owner}, not to {scheduler}", "leave it out")
    if service.slow_start_s and scheduler in BY_TABLE:
        message = (
            f"slow_start_s cannot be used with scheduler {scheduler}: each step would make its table anew, and as L4 "
            "nodes take the steps at different moments, their tables would differ"
        )
        yield Finding((*service.path, "slow_start_s"), message, "leave it out, or set ipvs: {scheduler: wlc}")
    if ipvs["one_packet"] and service.protocol in ("tcp", "sctp"):
        message = f"'one_packet' cannot be used with protocol {service.protocol}, which has flows"
        yield Finding(ipvs.at("one_packet"), message, "leave it out", at_key=True)


def _persistence(service: DraftService) -> Iterator[Finding]:
    ipvs = service.ipvs
    for key in ("persistence_ipv4_prefix", "persistence_ipv6_prefix"):
        if key in ipvs.given and "persistence_s" in ipvs.values and ipvs["persistence_s"] is None:
            message = f"'{key}' has no effect without 'persistence_s'"
            yield Finding(ipvs.at(key), message, "add persistence_s, or leave it out", at_key=True)


def _forwarding(service: DraftService) -> Iterator[Finding]:
    ipvs = service.ipvs
    forwarding, tunnel = ipvs["forwarding"], ipvs["tunnel"]
    if forwarding == "masquerade" and service.through == "l7":
        message = "forwarding masquerade cannot go through: l7, for HAProxy answers clients itself, from the VIP"
        yield Finding(ipvs.at("forwarding"), message, "set through: backend, or forwarding: tunnel")
    if forwarding in ("route", "masquerade"):
        for key in ("tunnel", "tunnel_port", "tunnel_checksum"):
            if key in ipvs.given:
                message = f"'{key}' has no effect with forwarding {forwarding}"
                yield Finding(ipvs.at(key), message, "leave it out", at_key=True)
    elif tunnel is not None:
        yield from _tunnel(service, tunnel)


def _tunnel(service: DraftService, tunnel: str) -> Iterator[Finding]:
    ipvs = service.ipvs
    if "tunnel_port" in ipvs.given and tunnel != "gue":
        message = f"'tunnel_port' has no effect with tunnel {tunnel}"
        yield Finding(ipvs.at("tunnel_port"), message, "leave it out, or set tunnel: gue", at_key=True)
    checksum = ipvs["tunnel_checksum"]
    if "tunnel_checksum" in ipvs.given and tunnel == "ipip":
        message = "'tunnel_checksum' has no effect with tunnel ipip"
        yield Finding(ipvs.at("tunnel_checksum"), message, "leave it out, or set tunnel: gue or gre", at_key=True)
    elif checksum == "remote" and tunnel == "gre":
        # net/netfilter/ipvs/ip_vs_xmit.c: only gue looks at IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM.
        yield Finding(ipvs.at("tunnel_checksum"), "checksum remote belongs to gue, not to gre", "use full or none")


def _limits(service: DraftService) -> Iterator[Finding]:
    ipvs = service.ipvs
    most, again, mark = ipvs["max_connections"], ipvs["resume_connections"], ipvs["mark"]
    if most is not None and again:
        if not most:
            message = "'resume_connections' has no effect without 'max_connections'"
            yield Finding(ipvs.at("resume_connections"), message, "add max_connections, or leave it out", at_key=True)
        elif again > most:
            message = f"resume_connections {again} is more than max_connections, {most}"
            yield Finding(ipvs.at("resume_connections"), message, "use at most that, or leave it out")
    if mark and (mark == DIRECT_MARK or ServiceKey.of_mark(mark, 4).carries_probes):
        message = f"mark {mark} is one of those that lbnode's own probes carry"
        hint = f"use another: not {DIRECT_MARK}, nor {PROBE_MARKS} to {PROBE_MARKS + 2**24 - 1}"
        yield Finding(ipvs.at("mark"), message, hint)
