"""Generations as the classifier reads them: one array of rows of 64 bytes for each group of services. PURE.

    rows 0 to 4092            a slot: for each of 16 structures its owner there, an index of servers (16 bits each), and
                              up to 15 choices (16 bits): where a flow of this slot may live, the likeliest first
    then 512 rows             a server: its address in 16 bytes (IPv4 mapped into IPv6), or zeros; number 0 is nobody
    then 1024 rows            who is down: a bit for each server; number 0 stands for nobody

A choice is a structure and a number of those that are down there (0: the slot's owner takes flows, and is meant
itself; otherwise the kernel's way on to another slot is repeated for the flow). Choices that come to the same are
there once: of the generations of a rolling restart a slot keeps those two that it differs in. A server that has failed
is blank in all of them at once.
"""

import struct
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv6Address, ip_address

from lbnode import maglev
from lbnode.chance.generations import Generation
from lbnode.maglev import MH_FALLBACK, SLOTS, Address, Table

ROW = 64
SERVERS, DOWNS, STRUCTURES, CHOICES = 512, 1024, 16, 16
ROWS = SLOTS + SERVERS + DOWNS
LAST = 0xFFFF
BYTES = ROW * ROWS

_SLOT = struct.Struct(f"<{STRUCTURES}H{CHOICES}H")


def mapped(address: Address) -> bytes:
    """16 bytes; an IPv4 address as ::ffff:192.0.2.1."""
    found = ip_address(address)
    return found.packed if isinstance(found, IPv6Address) else bytes(10) + b"\xff\xff" + found.packed


def pack(generations: Sequence[Generation], failed: Collection[str] = ()) -> bytes:
    """A whole table, BYTES long. Generations stand newest first; those for which there is no room, the oldest, are left
    out."""
    plan = _Plan(generations)
    slots = [structure.slots for structure in plan.structures]
    rows: dict[tuple[int, ...], bytes] = {}
    out = bytearray()
    for held in zip(*slots, strict=True):
        row = rows.get(held)
        if row is None:
            row = rows[held] = plan.row(held)
        out += row
    out += bytes(SLOTS * ROW - len(out)) if out else plan.row(()) * SLOTS
    for address in ("", *plan.addresses):
        out += (mapped(address) if address and address not in failed else bytes(16)).ljust(ROW, b"\0")
    out += bytes((SLOTS + SERVERS) * ROW - len(out))
    for down in (frozenset[int](), *plan.downs):
        out += sum(1 << server for server in down).to_bytes(ROW, "little")
    return bytes(out.ljust(BYTES, b"\0"))


class _Plan:
    """What stands where. Servers are counted from 1; `addresses[0]` is that of number 1, `downs[0]` that of 1 too."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self.structures: list[Table] = []
        self.addresses: list[str] = []
        self.downs: list[frozenset[int]] = []
        self._numbers: list[tuple[int, ...]] = []
        self._used: list[tuple[int, int]] = []  # structure and number of down, for each generation
        for generation in generations:
            if generation.structure.slots and not self._take(generation):
                break

    def row(self, held: Sequence[int]) -> bytes:
        """Of a slot: `held` is its owner in each structure, as an index of that structure's servers."""
        owners = [numbers[index] for numbers, index in zip(self._numbers, held, strict=True)] if held else []
        choices: dict[tuple[int, int], int] = {}
        for structure, down in self._used if held else ():
            owner = owners[structure]
            if not down or owner not in self.downs[down - 1]:
                choices.setdefault((0, owner), structure << 12)
            elif MH_FALLBACK in self.structures[structure].flags:
                choices.setdefault((down, structure), structure << 12 | down)
        some = list(choices.values())[: CHOICES - 1]
        return _SLOT.pack(*owners, *[0] * (STRUCTURES - len(owners)), *some, *[LAST] * (CHOICES - len(some)))

    def _take(self, generation: Generation) -> bool:
        """Whether there is room for one more."""
        structure = generation.structure
        new = [server.address for server in structure.servers if server.address not in self.addresses]
        if structure not in self.structures:
            if len(self.structures) == STRUCTURES or len(self.addresses) + len(dict.fromkeys(new)) >= SERVERS:
                return False
            self.addresses += dict.fromkeys(new)
            self.structures.append(structure)
            numbers = {address: number for number, address in enumerate(self.addresses, start=1)}
            self._numbers.append(tuple(numbers[server.address] for server in structure.servers))
        place = self.structures.index(structure)
        down = frozenset(self._numbers[place][index] for index in generation.down)
        if down and down not in self.downs:
            if len(self.downs) == DOWNS - 1:
                return False
            self.downs.append(down)
        self._used.append((place, self.downs.index(down) + 1 if down else 0))
        return True


def candidates(
    generations: Iterable[Generation], failed: Collection[str], source: Address, port: int
) -> list[tuple[str, Generation]]:
    """Where a flow may live, the likeliest first: what the classifier makes of a table, for people. With each address
    the newest generation that says so."""
    found: dict[str, Generation] = {}
    for generation in generations:
        server = maglev.lookup(generation.table, source, port).server
        if server is not None and server.address not in failed:
            found.setdefault(server.address, generation)
    return list(found.items())
