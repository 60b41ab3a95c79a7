"""What the relay and its neighbours say to each other, as text and back. PURE, and only the standard library.

Towards lbnode: the files `wanted` and `told`. Towards ExaBGP: lines of its API, which have one form from 4.2 to 5.0
unless a docstring says otherwise.
"""

import ipaddress
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lbnode.bgp.reasons import explained

Route = dict[str, Any]
"""The fields of an Announcement: prefix, peer, next_hop, and those of BLANK."""
BLANK: Route = {
    "med": None,
    "communities": [],
    "local_preference": None,
    "large_communities": [],
    "prepend": 0,
}
"""A route without attributes of its own."""
Key = tuple[str, str]
"""What ExaBGP knows a route by: peer, prefix."""

COMMUNITY, LARGE = re.compile(r"\d{1,5}:\d{1,5}", re.ASCII), re.compile(r"\d{1,10}:\d{1,10}:\d{1,10}", re.ASCII)
MOST_PREPENDED = 16
GROUP = 20
"""Prefixes of one command. ExaBGP then needs 0.7 s for 1,000 of them, 1.8 s one at a time; more would gain little."""
LOCK = "relay.lock"
"""The file beside `wanted` and `told` that the relay holds a lock on."""


class Neighbor(NamedTuple):
    """What ExaBGP runs a session with: the AS numbers of both sides, 0 when it does not say. `restarts`: the peer waits
    after a restart until it is told that it has heard all (RFC 4724, End-of-RIB). `secured`: by password or TTL."""

    local_asn: int = 0
    asn: int = 0
    restarts: bool = False
    secured: bool = False


class Wanted(NamedTuple):
    """`config` is the digest of the configuration that ExaBGP should run with, "" when that is no matter; `serial` is
    new with each writing, so that the writer knows the answer to its own."""

    routes: dict[Key, Route]
    config: str
    serial: str


class Step(NamedTuple):
    """One command and what it leads to, for one prefix or several: None stands for a withdrawal."""

    command: str
    routes: Mapping[Key, Route | None]


def wanted_text(routes: Iterable[Route], config: str, serial: str) -> str:
    """The content of the file `wanted`."""
    rows = sorted(routes, key=lambda route: (route["peer"], route["prefix"]))
    return json.dumps({"serial": serial, "config": config, "announcements": rows}, indent=1) + "\n"


def wanted_from(text: str) -> Wanted:
    """Raises ValueError when the text is not what `wanted_text` makes; nothing else gets as far as ExaBGP's input."""
    try:
        data = json.loads(text)
        routes = [_checked(route) for route in data["announcements"]]
        return Wanted(
            {(route["peer"], route["prefix"]): route for route in routes}, str(data["config"]), str(data["serial"])
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _checked(route: Route) -> Route:
    network, peer = ipaddress.ip_network(route["prefix"]), ipaddress.ip_address(route["peer"])
    next_hop = ipaddress.ip_address(route["next_hop"])
    # ExaBGP answers `done` to a route or a next hop of a family that the peer does not carry, and leaves it out.
    if not network.version == peer.version == next_hop.version:
        raise ValueError(f"{network} via {next_hop} is not of the family of peer {peer}")
    route = BLANK | route
    for name in ("med", "local_preference"):
        if route[name] is not None and not 0 <= int(route[name]) < 1 << 32:
            raise ValueError(f"{network}: {name} {route[name]}")
    if not 0 <= int(route["prepend"]) <= MOST_PREPENDED:
        raise ValueError(f"{network}: prepend {route['prepend']}")
    for name, form in (("communities", COMMUNITY), ("large_communities", LARGE)):
        for community in route[name]:
            if not form.fullmatch(community):
                raise ValueError(f"{network}: {name} {community!r}")
    return route


def difference(
    told: Mapping[Key, Route],
    wanted: Mapping[Key, Route],
    neighbors: Mapping[str, Neighbor],
    refused: Collection[Key] = (),
    alone: Collection[Key] = (),
) -> list[Step]:
    """What to tell so that `told` becomes `wanted`: withdrawals first. What was `refused` is not announced; routes of
    one peer with the same attributes go together, but those in `alone`."""
    gone = {key: f"next-hop {told[key]['next_hop']}" for key in sorted(told.keys() - wanted.keys())}
    new = {
        key: " ".join(attributes(route, neighbors.get(key[0], Neighbor())))
        for key, route in sorted(wanted.items())
        if told.get(key) != route and key not in refused
    }
    return [
        *(Step(withdraw(keys, words), dict.fromkeys(keys)) for keys, words in _groups(gone, alone)),
        *(Step(announce(keys, words), {key: wanted[key] for key in keys}) for keys, words in _groups(new, alone)),
    ]


def _groups(routes: Mapping[Key, str], alone: Collection[Key]) -> Iterator[tuple[list[Key], str]]:
    """What one command says: keys of one peer, and the words that they share."""
    groups: dict[tuple[str, str, Key | None], list[Key]] = {}
    for key, words in routes.items():
        groups.setdefault((key[0], words, key if key in alone else None), []).append(key)
    for (_, words, _), keys in groups.items():
        for start in range(0, len(keys), GROUP):
            yield keys[start : start + GROUP], words


def announce(keys: Sequence[Key], words: str) -> str:
    """The API command for routes of one peer. ExaBGP replaces the attributes of a route that it has already."""
    (peer, prefix), prefixes = keys[0], " ".join(prefix for _, prefix in keys)
    if len(keys) == 1:
        return f"neighbor {peer} announce route {prefix} {words}"
    return f"neighbor {peer} announce attributes {words} nlri {prefixes}"


def withdraw(keys: Sequence[Key], words: str) -> str:
    """The API command that takes routes back. Only several need a next hop, which is that of any."""
    (peer, prefix), prefixes = keys[0], " ".join(prefix for _, prefix in keys)
    if len(keys) == 1:
        return f"neighbor {peer} withdraw route {prefix}"
    return f"neighbor {peer} withdraw attributes {words} nlri {prefixes}"


def attributes(route: Route, neighbor: Neighbor) -> list[str]:
    """Next hop and attributes. A path that is given is sent as it is, so the own AS, which BGP puts in front for an
    eBGP peer, is part of it."""
    words = ["next-hop", route["next_hop"]]
    if route["med"] is not None:
        words += ["med", str(int(route["med"]))]
    if route["local_preference"] is not None:
        words += ["local-preference", str(int(route["local_preference"]))]
    if route["prepend"]:
        own = int(route["prepend"]) + (neighbor.asn != neighbor.local_asn)
        words += [f"as-path [ {' '.join([str(neighbor.local_asn)] * own)} ]"]
    if route["communities"]:
        words += [f"community [{' '.join(route['communities'])}]"]
    if route["large_communities"]:
        words += [f"large-community [{' '.join(route['large_communities'])}]"]
    return words


def end_of_rib(peer: str) -> str:
    """The API command that tells a peer that it has heard all there is."""
    return f"neighbor {peer} announce eor ipv{ipaddress.ip_address(peer).version} unicast"


def neighbors_from(lines: Sequence[str]) -> tuple[dict[str, Neighbor], str]:
    """`show neighbor configuration`: the peers, and the digest that all their descriptions carry, else ""."""
    peers: dict[str, dict[str, str]] = {}
    digests: list[str] = []
    settings: dict[str, str] = {}
    for line in lines:
        if match := re.match(r"neighbor (\S+) \{", line):
            settings = peers.setdefault(match[1], {})
        elif match := re.match(r'\s+description "lbnode config (\w+)";', line):
            digests.append(match[1])
        elif match := re.match(r"\s+(local-as|peer-as|manual-eor|incoming-ttl) (\w+);", line):
            settings[match[1]] = match[2]
        elif re.match(r"\s+md5-password ", line):
            settings["secured"] = "true"
    return {peer: _neighbor(seen) for peer, seen in peers.items()}, digests[0] if len(digests) == len(peers) and len(
        set(digests)
    ) == 1 else ""


def _neighbor(settings: Mapping[str, str]) -> Neighbor:
    return Neighbor(
        local_asn=int(settings.get("local-as", 0)),
        asn=int(settings.get("peer-as", 0)),
        restarts=settings.get("manual-eor") == "true",
        secured="secured" in settings or "incoming-ttl" in settings,
    )


def states_from(lines: Sequence[str]) -> dict[str, str]:
    """`show neighbor summary`: peer -> up or down. ExaBGP 4.2 leaves out peers that are down."""
    rows = [line.split() for line in lines]
    return {words[0]: "up" if "established" in words else "down" for words in rows if words and words[0] != "Peer"}


def routes_from(lines: Sequence[str]) -> dict[Key, Route]:
    """`show adj-rib out`: what ExaBGP announces, with the next hop only, so that no route wanted is equal to it.

    ExaBGP 4.2 begins each line with `neighbor`.
    """
    matches = (re.match(r"(?:neighbor )?(\S+) ipv[46] unicast (\S+) next-hop (\S+)", line) for line in lines)
    return {(match[1], match[2]): {"next_hop": match[3]} for match in matches if match}


def state_from(line: str) -> tuple[str, str, str] | None:
    """A `neighbor-changes` event: peer, state (connected, up, down), reason in words. None for other events."""
    try:
        event = json.loads(line)
        if event["type"] != "state":
            return None
        neighbor = event["neighbor"]
        found = neighbor["address"]["peer"], neighbor["state"], neighbor.get("reason", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(part, str) for part in found):
        return None
    return found[0], found[1], explained(found[2])
