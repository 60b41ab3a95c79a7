"""haproxy.cfg read back: its sections, its servers, and which of that only a reload can change. PURE.

What stands in the file is the truth, also when it was made by an operator's own template. So what a change takes is
read from the text: servers of a backend that can take and lose them at run time are no part of the file's digest, all
else is.

Sources: management manual 2.6, `add server`; configuration manual 2.6, `balance`, `hash-type`, `cookie`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address

from lbnode.resources import PoolServer

ENABLER = ("enabler", "enabler")
DYNAMIC = ("roundrobin", "leastconn", "first", "random")
"""Algorithms that take servers at run time; hashes do when they are consistent."""
COOKIES_SINCE = (3, 0)
"""`add server` knows `cookie` from this version on."""
DESCRIPTION = ("description", "lbnode")


@dataclass(frozen=True)
class ServerLine:
    """A `server` line. `words` are its own, `inherited` those of the `default-server` lines that hold for it."""

    name: str
    endpoint: str
    words: tuple[str, ...]
    inherited: tuple[str, ...]

    @property
    def all_words(self) -> tuple[str, ...]:
        return (*self.inherited, *self.words)

    @property
    def address(self) -> str:
        return canonical(self.endpoint.rpartition(":")[0].strip("[]"))

    @property
    def port(self) -> str:
        return self.endpoint.rpartition(":")[2]

    @property
    def rest(self) -> tuple[str, ...]:
        """What cannot be changed at run time: its own words but for `id` and `weight`."""
        found = list(self.words)
        for keyword in ("id", "weight"):
            if keyword in found[:-1]:
                place = found.index(keyword)
                del found[place : place + 2]
        return tuple(found)


@dataclass
class Section:
    """One section: `lines` without comments and servers, and the servers."""

    title: str
    lines: list[list[str]] = field(default_factory=list)
    servers: list[ServerLine] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.title.partition(" ")[2]

    def takes_servers(self, version: tuple[int, int]) -> bool:
        """Whether servers may come and go without a reload."""
        balance = [line[1] for line in self.lines if line[0] == "balance" and len(line) > 1]
        hashed = [line[1] for line in self.lines if line[0] == "hash-type" and len(line) > 1]
        cookies = any(line[0] == "cookie" for line in self.lines) and version < COOKIES_SINCE
        dynamic = not balance or balance[-1].partition("(")[0] in DYNAMIC or hashed[-1:] == ["consistent"]
        return dynamic and not cookies and self.name != ENABLER[0]


def sections(text: str) -> list[Section]:
    """The sections of a configuration, in its order."""
    found: list[Section] = []
    inherited: list[str] = []
    defaults: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not line[0].isspace():
            found.append(Section(" ".join(words[:2])))
            if words[0] == "defaults":
                inherited = []
            defaults = list(inherited) if words[0] in ("backend", "listen") else []
        elif not found:
            continue
        elif words[0] == "server" and len(words) > 2:
            found[-1].servers.append(ServerLine(words[1], words[2], tuple(words[3:]), tuple(defaults)))
        else:
            found[-1].lines.append(words)
            if words[0] == "default-server":
                defaults += words[1:]
                inherited += words[1:] if found[-1].title.startswith("defaults") else []
    return found


def digests(parsed: Iterable[Section], version: tuple[int, int]) -> dict[str, str]:
    """Of each section that part which only a reload can change, as a digest, by the section's title."""
    found: dict[str, str] = {}
    for section in parsed:
        lines = [" ".join(line) for line in section.lines if tuple(line[:2]) != DESCRIPTION]
        fluid = section.takes_servers(version)
        for server in section.servers:
            if section.name == ENABLER[0]:
                lines.append(" ".join((server.name, server.endpoint, *server.words)))
            elif server.rest or not fluid:
                lines.append(" ".join((server.name, *server.rest)))
        found[section.title] = _digest([found.get(section.title, ""), *lines])
    return found


def digest(parts: Mapping[str, str]) -> str:
    """One for all sections: 16 hexadecimal digits."""
    return _digest(f"{title} {part}" for title, part in parts.items())


def servers(parsed: Iterable[Section]) -> tuple[PoolServer, ...]:
    """The servers of all pools, as rows."""
    return tuple(
        _row(section.name, server) for section in parsed for server in section.servers if section.name != ENABLER[0]
    )


def _row(backend: str, server: ServerLine) -> PoolServer:
    words = server.all_words
    return PoolServer(
        backend,
        server.name,
        server.address,
        int(server.port),
        int(value(words, "weight") or 1),
        words=" ".join(words),
        checked=switched_on(words, "check"),
        asked=switched_on(words, "agent-check"),
    )


def switched_on(words: tuple[str, ...], keyword: str) -> bool:
    """The last of `keyword` and `no-keyword` decides."""
    if keyword not in words:
        return False
    return next(word for word in reversed(words) if word in (keyword, f"no-{keyword}")) == keyword


def value(words: tuple[str, ...], keyword: str) -> str:
    """What follows the last `keyword`; empty where it does not stand."""
    places = (place for place in range(len(words) - 2, -1, -1) if words[place] == keyword)
    return next((words[place + 1] for place in places), "")


@lru_cache(maxsize=1 << 16)
def canonical(address: str) -> str:
    """The usual text of an address; of anything else, the same."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode()).hexdigest()[:16]
