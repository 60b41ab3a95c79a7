"""The kernel's Maglev table (IPVS scheduler mh), exact: who gets a flow, and what a change of tables moves. PURE.

The algorithm is that of net/netfilter/ipvs/ip_vs_mh.c. Its hash keys are constants, so every node, and this module,
comes to the same table from the same list of servers: their addresses, ports, weights, and order.

    key of a flow   its source address and source port (without mh-port: the address alone) as one 32-bit sum. VIP, VIP
                    port and protocol are not hashed.
    slot            the key's place in the table; each slot is held by one server. All slots are equally likely, so a
                    share of slots is a share of the flow space: of all keys, hence of new flows from many clients.
    weight          what a server gets new flows with now. At 0 it holds its slots and gets no new flow.
    table weight    what it holds its slots with: its last weight above 0 (`last_weight`); 0: never had one, no slots.
    fallback        with mh-fallback, a key whose server is at 0 is hashed again until it finds one that is not; without
                    it, its packet is dropped.

Not modelled: overload by connection thresholds, persistence, 32-bit kernels (their hsiphash is another function).
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple

SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
"""The sizes a table can have, for CONFIG_IP_VS_MH_TAB_INDEX = 8, 9, ..."""
SLOTS = 4093
"""The size with the default index, 12. The kernel accepts more destinations than slots, with a stale table."""
MH_FALLBACK, MH_PORT = "mh-fallback", "mh-port"

Family = Literal[4, 6]
Address = str | IPv4Address | IPv6Address
Name = tuple[str, int]  # of a server: address and port

_KEY1, _KEY2 = 2654435761, 2654446892  # both halves of each; generate_hash_secret()
_M32, _M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


class Server(NamedTuple):
    """One destination of a virtual service, as the scheduler sees it."""

    address: str
    port: int
    weight: int
    table_weight: int

    @property
    def name(self) -> Name:
        return (self.address, self.port)


@dataclass(frozen=True)
class Table:
    """All that decides where flows go. Made by `build`; tables that are equal send every flow alike."""

    servers: tuple[Server, ...]
    version: Family
    flags: tuple[str, ...]
    size: int

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """For each slot, its server's index in `servers`; () when no server has a table weight. Takes a few ms."""
        places = (_fold(server.address, self.version) + server.port & _M32 for server in self.servers)
        weights = [server.table_weight for server in self.servers]
        return _populate(tuple(zip(places, turns(weights, self.size), strict=True)), self.size)

    @cached_property
    def serves(self) -> bool:
        """Whether any server with slots takes new flows."""
        return any(server.weight for server in self.servers)


class Answer(NamedTuple):
    """Where a new flow goes; None: it is dropped. `slot` is its own; after a `fallback` that one's server is at 0."""

    server: Server | None
    slot: int
    fallback: bool


class Impact(NamedTuple):
    """What the change from one table to another does to new flows, as shares of the flow space, 0 to 1.

    `moved`: had a server, and now get another or none. `unavoidable`: the least of it with any scheduler, for servers
    lose that much of their shares: the whole of one that leaves or goes to weight 0; the fair share of one that comes,
    taken from the others.

    Flows with an entry in this node's connection table stay where they are, whatever the table says. But when ECMP
    takes one to another node, that one has no entry and asks its table: of those flows, `moved` break too.
    """

    moved: float
    unavoidable: float


def build(
    servers: Sequence[Server], version: Family, size: int = SLOTS, flags: Sequence[str] = (MH_FALLBACK, MH_PORT)
) -> Table:
    """The table of a service of that family. `servers` stand oldest first (the kernel's list has the newest first).
    Raises ValueError for what the kernel could not build."""
    if size not in SIZES or len(servers) > size:
        raise ValueError(f"cannot build a Maglev table of {size} slots for {len(servers)} servers: the kernel has none")
    settled = (s if s.weight in (0, s.table_weight) else s._replace(table_weight=s.weight) for s in servers)
    return Table(tuple(settled), version, tuple(sorted(flags)), size)


def turns(weights: Sequence[int], size: int = SLOTS) -> list[int]:
    """How many slots servers of these table weights take in their turns: some 6 bits of weight / gcd
    (ip_vs_mh_shift_weight). Where they add up to more than there are slots, the oldest servers get none."""
    gcd = math.gcd(*weights)
    if not gcd:
        return [0] * len(weights)
    bits = (SIZES.index(size) + 8) // 2
    shift = max(0, (max(weights) // gcd).bit_length() - bits)
    return [(weight // gcd >> shift) or int(weight != 0) for weight in weights]


def lookup(table: Table, source: Address, port: int) -> Answer:
    """Which server a new flow from that source address and port gets. The source is of the service's family."""
    key = _fold(source, table.version) + (port if MH_PORT in table.flags else 0)
    slots, servers = table.slots, table.servers
    home = _hsiphash(key & _M32, _KEY1) % table.size
    if not table.serves:
        return Answer(None, home, fallback=False)
    if servers[slots[home]].weight:
        return Answer(servers[slots[home]], home, fallback=False)
    if MH_FALLBACK not in table.flags:
        return Answer(None, home, fallback=False)
    for step in range(table.size):
        slot = _hsiphash(key + (step + home) % table.size & _M32, _KEY1) % table.size
        if servers[slots[slot]].weight:
            return Answer(servers[slots[slot]], home, fallback=True)
    return Answer(None, home, fallback=False)


@lru_cache(maxsize=256)
def fingerprint(table: Table) -> str:
    """12 hexadecimal digits of all that makes the table. Equal on two nodes: each new flow gets the same on both."""
    text = json.dumps([table.version, table.size, table.flags, table.servers])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shares(table: Table) -> dict[Name, float]:
    """The share of new flows of each server that gets any; what is missing to 1 is dropped.

    Keys that are hashed again find the servers as often as these hold slots, for the hash is uniform; so with fallback
    a server's share is its part of the slots whose server is not at 0.
    """
    held = Counter(holder for holder in _holders(table) if holder)
    whole = held.total() if MH_FALLBACK in table.flags else table.size
    return {name: count / whole for name, count in held.items()}


@lru_cache(maxsize=256)
def impact(before: Table, after: Table) -> Impact:
    """What a change of tables moves.

    Computed slot by slot. It is exact for every slot whose server is not at 0, before or after. A key that falls back
    depends on more than its slot; it is counted by its chance, over all keys, to find a given server (see `shares`):
    before and after it tries the same slots in the same order, so it stays where the first slot that serves in either
    table serves alike in both. This is the mean that a sample of keys would only come near to.
    """
    had, gets = shares(before), shares(after)
    unavoidable = sum(max(0.0, share - gets.get(name, 0.0)) for name, share in had.items())
    if (before.size, MH_PORT in before.flags) != (after.size, MH_PORT in after.flags):  # two hashings
        moved = sum(share * (1 - gets.get(name, 0.0)) for name, share in had.items())
        return Impact(moved, min(unavoidable, moved))
    pairs = Counter(zip(_holders(before), _holders(after), strict=True))
    neither = pairs.pop((None, None), 0)
    again_before, again_after = MH_FALLBACK in before.flags, MH_FALLBACK in after.flags
    moved = 0.0
    for (old, new), count in pairs.items():
        if old and new:
            moved += count * (old != new)
        elif old:
            moved += count * (1 - gets.get(old, 0.0) if again_after else 1)
        elif again_before and had and new:
            moved += count * (1 - had.get(new, 0.0))
    if again_before and had and neither:
        # Both fall back: as often as the other slots do; or, when nothing catches them any more, always.
        moved += neither * (moved / (before.size - neither) if again_after else 1)
    return Impact(moved / before.size, min(unavoidable, moved / before.size))


def _holders(table: Table) -> Iterator[Name | None]:
    """For each slot, the server that takes its new flows; None when that is at weight 0, or there is none."""
    names = [server.name if server.weight else None for server in table.servers]
    return (names[index] for index in table.slots) if table.slots else iter([None] * table.size)


def _fold(address: Address, version: Family) -> int:
    """An address as 32 bits, by the service's family: of an IPv6 address the four words, XORed; for an IPv4 service
    the first one. An IPv4 address has one word, and zeros after it (ip_vs_mh_hashkey)."""
    found = ip_address(address)
    number = int(found)
    if found.version == 4:
        return number
    words = [number >> shift & _M32 for shift in (96, 64, 32, 0)]
    return words[0] if version == 4 else words[0] ^ words[1] ^ words[2] ^ words[3]


@lru_cache(maxsize=64)
def _populate(places: tuple[tuple[int, int], ...], size: int) -> tuple[int, ...]:
    """Fills the slots from each server's (place, turns), oldest first: round by round, newest first, each takes its
    turns along its own walk through the table (ip_vs_mh_permutate, ip_vs_mh_populate)."""
    walks = [
        [_hsiphash(place, _KEY1) % size, _hsiphash(place, _KEY2) % (size - 1) + 1, turns, index]
        for index, (place, turns) in reversed(list(enumerate(places)))
        if turns
    ]
    slots, free = [-1] * size, size if walks else 0
    while free:
        for walk in walks:
            position, skip, turns, index = walk
            for _ in range(min(turns, free)):
                while slots[position] >= 0:
                    position = (position + skip) % size
                slots[position] = index
                free -= 1
            walk[0] = position
    return tuple(slots) if walks else ()


@lru_cache(maxsize=65536)
def _hsiphash(value: int, key: int) -> int:
    """SipHash-1-3 of 4 bytes, low 32 bits: hsiphash_1u32() of a 64-bit kernel (lib/siphash.c)."""
    v0, v1 = key ^ 0x736F6D6570736575, key ^ 0x646F72616E646F6D
    v2, v3 = key ^ 0x6C7967656E657261, key ^ 0x7465646279746573
    block = 4 << 56 | value
    v3 ^= block
    for turn in range(4):
        v0 = v0 + v1 & _M64
        v1 = (v1 << 13 | v1 >> 51) & _M64 ^ v0
        v0 = (v0 << 32 | v0 >> 32) & _M64
        v2 = v2 + v3 & _M64
        v3 = (v3 << 16 | v3 >> 48) & _M64 ^ v2
        v0 = v0 + v3 & _M64
        v3 = (v3 << 21 | v3 >> 43) & _M64 ^ v0
        v2 = v2 + v1 & _M64
        v1 = (v1 << 17 | v1 >> 47) & _M64 ^ v2
        v2 = (v2 << 32 | v2 >> 32) & _M64
        if turn == 0:
            v0, v2 = v0 ^ block, v2 ^ 0xFF
    return (v0 ^ v1 ^ v2 ^ v3) & _M32
