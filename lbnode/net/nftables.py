"""Our nftables table in nft's own JSON. PURE.

    chain input (IPVS looks at what comes in after it)     chain output
      tunnelled packets from strangers: drop
      mark  = mark4 or mark6 [VIP . protocol . port]         MSS = N   for packets from the VIPs in mss-N-4 or mss-N-6
      guard4 or guard6 [VIP . protocol . port] -> a chain of the service
                                                             chain to-VIP-PROTOCOL-PORT
                                                               sources that are not allowed, SYNs beyond the limit: drop

One look-up per packet finds what applies to it, however many services there are. `lbnode.net.nftlisting` goes the
other way round.

Sources: libnftables-json(5), nft(8). The numeric form (`nft -n`) is used both ways: names depend on /etc/protocols.
"""

import json
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any, Literal, TypeAlias, cast

from lbnode.resources import MssClamp, PacketMark, Row, ServiceKey, SourceAllow, SynLimit, TunnelGuard

FAMILY, TABLE = "inet", "lbnode"
OURS: dict[str, Any] = {"family": FAMILY, "table": TABLE}
PRIORITY = -150
"""`mangle`: before other people's filters (0), and before IPVS: NF_IP_PRI_NAT_SRC - 2, 98 (net/netfilter/ipvs)."""

PROTOCOLS: dict[str, int] = {"tcp": 6, "udp": 17, "sctp": 132}
IP = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
FIN, SYN, RST, ACK = 1, 2, 4, 16
# An ICMP error carries the packet it is about behind 8 bytes of its own: where that one's protocol, source and source
# port stand, in bits (RFC 792, RFC 4443). A header with options is not followed.
ICMP_ERRORS: dict[int, tuple[str, list[int]]] = {4: ("icmp", [3, 11, 12]), 6: ("icmpv6", [1, 2, 3, 4])}
INNER: dict[int, tuple[int, int, int]] = {4: (136, 160, 224), 6: (112, 128, 384)}

Object: TypeAlias = dict[str, dict[str, Any]]
Network: TypeAlias = IPv4Network | IPv6Network


def replacement(rows: Collection[Row]) -> str:
    """What `nft -j -f -` makes of it, in one transaction: the table with these rows alone, or no table for none."""
    table = {"table": {"family": FAMILY, "name": TABLE}}
    commands: list[object] = [{"add": table}, {"delete": table}]
    if rows:
        commands += [{"add": item} for item in objects(rows)]
    return json.dumps({"nftables": commands})


def networks(row: SourceAllow) -> tuple[Network, ...]:
    """Its sources, those of the VIP's family alone, in the shortest form."""
    version = ip_address(row.service.vip).version
    found: list[Any] = [ip_network(text) for text in row.sources]
    return tuple(collapse_addresses(network for network in found if network.version == version))


def objects(wanted: Collection[Row]) -> list[Object]:
    """The table as nft lists it, but for handles: sets and maps, chains, rules."""
    marks = sorted((row for row in wanted if isinstance(row, PacketMark)), key=lambda row: row.service)
    clamps = [row for row in wanted if isinstance(row, MssClamp)]
    guards: dict[ServiceKey, list[Row]] = {}
    for row in sorted(wanted, key=lambda row: row.key):
        if isinstance(row, SourceAllow | SynLimit):
            guards.setdefault(row.service, []).append(row)
    items: list[Object] = [{"table": {"family": FAMILY, "name": TABLE}}]
    items += [{"chain": {**OURS, "name": chain(service)}} for service in guards]
    tunnels = sorted((row for row in wanted if isinstance(row, TunnelGuard)), key=lambda row: row.place)
    items += [_hook(name) for name, needed in (("input", tunnels or guards or marks), ("output", clamps)) if needed]
    rules: list[Object] = [_rule("input", *_tunnel(row)) for row in tunnels]
    rules += [_rule(chain(service), *_guard(row)) for service, limits in guards.items() for row in limits]
    for version in (4, 6):
        items += _map(version, "mark", {row.service: row.mark for row in marks})
        items += _map(version, "guard", {service: {"jump": {"target": chain(service)}} for service in guards})
        if any(version_of(row.service.vip) == version for row in marks):
            value = {"map": {"key": _target(version), "data": f"@mark{version}"}}
            rules.append(_rule("input", _mangle({"meta": {"key": "mark"}}, value)))
            rules += [_rule("input", *_error_mark(row)) for row in marks if version_of(row.service.vip) == version]
        if any(version_of(service.vip) == version for service in guards):
            rules.append(_rule("input", {"vmap": {"key": _target(version), "data": f"@guard{version}"}}))
    for version, mss in sorted({(version_of(row.vip), row.mss) for row in clamps}):
        vips = sorted(row.vip for row in clamps if (version_of(row.vip), row.mss) == (version, mss))
        name = f"mss-{mss}-{version}"
        items.append({"set": {**OURS, "name": name, "type": ADDRESS_TYPE[version], "elem": vips}})
        rules.append(_rule("output", *_clamp(version, name, mss)))
    return items + rules


def chain(service: ServiceKey) -> str:
    return f"to-{service.vip.replace(':', '_')}-{service.protocol}-{service.port}"


def _hook(name: str) -> Object:
    return {"chain": {**OURS, "name": name, "type": "filter", "hook": name, "prio": PRIORITY, "policy": "accept"}}


def _map(version: int, name: str, values: Mapping[ServiceKey, object]) -> list[Object]:
    elements = [
        [{"concat": [service.vip, PROTOCOLS[service.protocol], service.port]}, value]
        for service, value in values.items()
        if version_of(service.vip) == version
    ]
    kind = {"mark": "mark", "guard": "verdict"}[name]
    body = {"type": [ADDRESS_TYPE[version], "inet_proto", "inet_service"], "map": kind, "elem": elements}
    return [{"map": {**OURS, "name": f"{name}{version}", **body}}] if elements else []


def _rule(chain: str, *statements: object) -> Object:
    return {"rule": {**OURS, "chain": chain, "expr": list(statements)}}


def _guard(row: Row) -> list[object]:
    """The statements that drop what a row forbids. The counter is for people who read the table."""
    drop: list[object] = [{"counter": {"packets": 0, "bytes": 0}}, {"drop": None}]
    if isinstance(row, SynLimit):
        flags = {"&": [_field("tcp", "flags"), [FIN, SYN, RST, ACK]]}
        limit = {"limit": {"rate": row.per_s, "burst": row.burst, "per": "second", "inv": True}}
        return [match("==", flags, SYN), limit, *drop]
    allow = cast("SourceAllow", row)
    sources = [{"prefix": {"addr": str(one.network_address), "len": one.prefixlen}} for one in networks(allow)]
    saddr = _field(IP[version_of(allow.service.vip)], "saddr")
    return [match("!=", saddr, {"set": sources}), *drop] if sources else drop


def _tunnel(row: TunnelGuard) -> list[object]:
    """IPIP and its like are looked at before they are unpacked: that is what comes to this node (NF_INET_LOCAL_IN)."""
    sources = [{"prefix": {"addr": one, "len": 32 if row.version == 4 else 128}} for one in row.sources]
    what = match("==", {"meta": {"key": "l4proto"}}, row.protocol)
    if row.port:
        what = match("==", _field("udp", "dport"), row.port)
    saddr = match("!=", _field(IP[row.version], "saddr"), {"set": sources})
    return [what, saddr, {"counter": {"packets": 0, "bytes": 0}}, {"drop": None}]


def _error_mark(row: PacketMark) -> list[object]:
    """An ICMP error about a packet from the VIP is scheduled by its own mark (ip_vs_core.c, ip_vs_try_to_schedule)."""
    version = version_of(row.service.vip)
    protocol, types = ICMP_ERRORS[version]
    width = 32 if version == 4 else 128
    parts = zip(INNER[version], (8, width, 16), _wire(row.service), strict=True)
    inner = [match("==", {"payload": {"base": "th", "offset": at, "len": bits}}, value) for at, bits, value in parts]
    return [
        match("==", _field(protocol, "type"), {"set": types}),
        *inner,
        _mangle({"meta": {"key": "mark"}}, row.mark),
    ]


def _wire(service: ServiceKey) -> tuple[int | str, ...]:
    """Protocol, address and port as nft writes bare numbers: more than 64 bits as text."""
    address = int(ip_address(service.vip))
    wide = f"{address:#034x}" if version_of(service.vip) == 6 else address
    return PROTOCOLS[service.protocol], wide, service.port


def _clamp(version: int, name: str, mss: int) -> list[object]:
    """The kernel only ever lowers it (net/netfilter/nft_exthdr.c, nft_exthdr_tcp_set_eval)."""
    size = {"tcp option": {"name": "maxseg", "field": "size"}}
    syn = match("in", _field("tcp", "flags"), SYN)
    return [match("==", _field(IP[version], "saddr"), f"@{name}"), syn, _mangle(size, mss)]


def _target(version: int) -> object:
    return {"concat": [_field(IP[version], "daddr"), {"meta": {"key": "l4proto"}}, _field("th", "dport")]}


def _field(protocol: str, field: str) -> object:
    return {"payload": {"protocol": protocol, "field": field}}


def match(operator: str, left: object, right: object) -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def _mangle(key: object, value: object) -> dict[str, Any]:
    return {"mangle": {"key": key, "value": value}}


def version_of(address: str) -> Literal[4, 6]:
    return 6 if ":" in address else 4
