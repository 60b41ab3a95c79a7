"""Rows out of what nft lists of our table. PURE.

The rows are picked out of maps, sets and chains, written again as `lbnode.net.nftables` would, and compared with what
was read. What is then too much, missing or in another order is damage, and shown as such (`FilterDamage`): nothing in
the table stays unseen, and no row is shown that is not in force.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import collapse_addresses, ip_address, ip_network, summarize_address_range
from typing import Any, Literal, cast

from lbnode.net.nftables import PROTOCOLS, Network, Object, chain, match, networks, objects
from lbnode.resources import (
    FilterDamage,
    Key,
    MssClamp,
    PacketMark,
    Protocol,
    Row,
    ServiceKey,
    SourceAllow,
    SynLimit,
    TunnelGuard,
)

VERSIONS: dict[str, Literal[4, 6]] = {"ip": 4, "ip6": 6}
MOST_SOURCES = 10_000
UNLIKE_OURS = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What somebody else's objects raise when they are read as if they were ours."""


def rows(listing: str) -> tuple[Row, ...]:
    """The rows in what `nft -j -n list table inet lbnode` printed, and a FilterDamage for all else in it.

    Raises ValueError for what is not nft's JSON.
    """
    document = json.loads(listing)
    if not isinstance(document, dict) or not isinstance(document.get("nftables"), list):
        raise ValueError("it is not what nft prints")  # noqa: TRY004 - the text is wrong, not the call
    items = [_without_handles(item) for item in document["nftables"] if "metainfo" not in item]
    found: dict[Key, Row] = {}
    for row in (*_tunnels(items), *_marks(items), *_guards(items), *_clamps(items)):
        found.setdefault(row.key, row)
    return (*found.values(), *_damage(items, objects(found.values())))


def in_words_of(wanted: Iterable[Row], found: Iterable[Row]) -> tuple[Row, ...]:
    """The rows found, but in the words of wanted ones that mean the same: the kernel joins networks that touch."""
    words = {row.key: row for row in wanted if isinstance(row, SourceAllow)}
    return tuple(_in_words_of(row, words.get(row.key)) for row in found)


def _without_handles(item: Object) -> Object:
    return {kind: {name: value for name, value in body.items() if name != "handle"} for kind, body in item.items()}


def _elements(items: Sequence[Object], kind: str, name: str) -> Iterator[tuple[str, Any]]:
    """Set or map name, and element, of those whose name begins with `name`."""
    for item in items:
        if kind in item and item[kind]["name"].startswith(name):
            yield from ((item[kind]["name"], element) for element in item[kind].get("elem", []))


def _services(items: Sequence[Object], name: str) -> Iterator[tuple[ServiceKey, Any]]:
    """What a map says, for the protocols that services have."""
    names = {number: cast("Protocol", word) for word, number in PROTOCOLS.items()}
    for _, element in _elements(items, "map", name):
        try:
            key, value = element
            vip, protocol, port = key["concat"]
            yield ServiceKey(str(ip_address(vip)), names[protocol], int(port)), value
        except UNLIKE_OURS:
            continue


def _marks(items: Sequence[Object]) -> Iterator[Row]:
    return (PacketMark(service, mark) for service, mark in _services(items, "mark") if isinstance(mark, int))


def _guards(items: Sequence[Object]) -> Iterator[Row]:
    rules: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        if "rule" in item:
            rules.setdefault(item["rule"]["chain"], []).append(item["rule"])
    for service, _ in _services(items, "guard"):
        for rule in rules.get(chain(service), []):
            try:
                yield _guard(service, rule["expr"])
            except UNLIKE_OURS:
                continue


def _guard(service: ServiceKey, statements: Sequence[dict[str, Any]]) -> Row:
    """What the statements look like; whether they are just that, the comparison tells."""
    for statement in statements:
        if limit := statement.get("limit"):
            return SynLimit(service, int(limit["rate"]), int(limit["burst"]))
    first = statements[0].get("match")
    return SourceAllow(service, tuple(str(one) for one in _networks(first["right"])) if first else ())


def _tunnels(items: Sequence[Object]) -> Iterator[Row]:
    """Rules of the input chain that ask for a protocol, or a UDP port, and then for the source."""
    for item in items:
        try:
            what, source = (statement["match"] for statement in item["rule"]["expr"][:2])
            asked = source["left"]["payload"]
            version = VERSIONS[asked["protocol"]]
            sources = tuple(_each(_networks(source["right"])))
            if "meta" in what["left"]:
                yield TunnelGuard(version, int(what["right"]), 0, sources)
            elif what["left"]["payload"] == {"protocol": "udp", "field": "dport"}:
                yield TunnelGuard(version, PROTOCOLS["udp"], int(what["right"]), sources)
        except UNLIKE_OURS:
            continue


def _each(found: tuple[Network, ...]) -> Iterator[str]:
    """Every address of these networks. Raises ValueError when they are more than there are nodes."""
    if sum(network.num_addresses for network in found) > MOST_SOURCES:
        raise ValueError("too many addresses")
    for network in found:
        yield from (str(address) for address in network)


def _clamps(items: Sequence[Object]) -> Iterator[Row]:
    for name, vip in _elements(items, "set", "mss-"):
        try:
            yield MssClamp(str(ip_address(vip)), int(name.split("-")[1]))
        except UNLIKE_OURS:
            continue


def _networks(right: Any) -> tuple[Network, ...]:
    """The addresses on the right of a match, in the shortest form: one or a set of addresses, prefixes and ranges."""
    found: list[Any] = []
    for one in right["set"] if isinstance(right, dict) and "set" in right else [right]:
        if isinstance(one, str):
            found.append(ip_network(one))
        elif "prefix" in one:
            found.append(ip_network(f"{one['prefix']['addr']}/{one['prefix']['len']}"))
        else:
            found += summarize_address_range(*(ip_address(end) for end in one["range"]))
    return tuple(sorted(collapse_addresses(found)))


def _in_words_of(row: Row, other: Row | None) -> Row:
    if other is None or row == other or not isinstance(row, SourceAllow) or not isinstance(other, SourceAllow):
        return row
    return other if networks(row) == networks(other) else row


def _damage(found: Sequence[Object], expected: Sequence[Object]) -> list[FilterDamage]:
    """Everything that differs: too much, missing, or in another order."""
    have, want = list(_lines(found)), list(_lines(expected))
    words = [f"not ours: {line}" for line in (Counter(have) - Counter(want)).elements()]
    words += [f"missing: {line}" for line in (Counter(want) - Counter(have)).elements()]
    if not words:
        order, right = ([line for line in lines if line.startswith("rule ")] for lines in (have, want))
        chains = {one.split(":")[0] for one, other in zip(order, right, strict=True) if one != other}
        words = [f"in another order: {name}" for name in sorted(chains)]
    return [FilterDamage(text) for text in dict.fromkeys(words)]


def _lines(items: Sequence[Object]) -> Iterator[str]:
    """Each object, and each element, as one line of text; rules by chain and in their order."""
    for kind, body in (pair for item in items for pair in item.items() if pair[0] != "rule"):
        rest = {name: value for name, value in body.items() if name not in ("family", "table", "name", "elem")}
        yield f"{kind} {body.get('name')} {_text(rest) if rest else ''}".rstrip()
        yield from (f"element of {body.get('name')}: {_text(element)}" for element in body.get("elem", []))
    rules = [item["rule"] for item in items if "rule" in item]
    for rule in sorted(rules, key=lambda rule: str(rule["chain"])):
        rest = {name: value for name, value in rule.items() if name not in ("family", "table", "chain", "expr")}
        words = [_text([_normal(one) for one in rule["expr"]]), *([_text(rest)] if rest else [])]
        yield f"rule of {rule['chain']}: {' '.join(words)}"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _normal(statement: Any) -> object:
    """Without counts, and with sources in the shortest form."""
    if isinstance(statement, dict) and "counter" in statement:
        return "counter"
    try:
        test = statement["match"]
        if test["left"]["payload"]["field"] == "saddr":
            return match(test["op"], test["left"], [str(one) for one in _networks(test["right"])])
    except UNLIKE_OURS:
        pass
    return statement
