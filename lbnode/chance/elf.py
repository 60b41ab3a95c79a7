"""What is in the classifier's object file: instructions, the places that name maps, and what those maps are. PURE.

Compiled for the kernel (`clang -target bpf`) an object is ELF, 64 bits, little endian. Of all that ELF can say it uses
little: a section of instructions, one of map definitions (five 32-bit numbers each), symbols, and relocations, each of
which says that the instruction at that place loads the address of a map.

Sources: elf(5); Documentation/bpf/llvm_reloc.rst (R_BPF_64_64); include/uapi/linux/bpf.h (BPF_PSEUDO_MAP_FD).
"""

import struct
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

from lbnode.errors import LbnodeError

CODE, MAPS, LICENCE, SOURCE = "classifier", "maps", "license", "source"
MACHINE_BPF, R_BPF_64_64 = 247, 1
LOAD_64, PSEUDO_MAP_FD = 0x18, 1

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DEFINITION = struct.Struct("<IIIII")


class Definition(NamedTuple):
    """What a map is: type, sizes in bytes, how many entries."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


class Object(NamedTuple):
    """`maps` in the order of the source; `places`: where in `code` (bytes) the address of which map is loaded."""

    code: bytes
    licence: bytes
    maps: Mapping[str, Definition]
    places: Mapping[int, str]
    source: str

    def linked(self, descriptors: Mapping[str, int]) -> bytes:
        """The instructions, with the maps' descriptors where their addresses go."""
        code = bytearray(self.code)
        for place, name in self.places.items():
            operation, registers = struct.unpack_from("<BB", code, place)
            if operation != LOAD_64:
                raise LbnodeError(f"cannot use the classifier: no address is loaded at {place}")
            struct.pack_into("<Bxxi", code, place + 1, registers & 0x0F | PSEUDO_MAP_FD << 4, descriptors[name])
        return bytes(code)


class _Section(NamedTuple):
    name: str
    data: bytes


def parse(data: bytes) -> Object:
    """Raises LbnodeError for what is no such object."""
    try:
        return _parse(data)
    except (struct.error, KeyError, IndexError, ValueError, OverflowError) as error:
        raise LbnodeError(f"cannot use the classifier: its object file is damaged: {error!r}") from error


def _parse(data: bytes) -> Object:
    if data[:7] != b"\x7fELF\x02\x01\x01" or struct.unpack_from("<H", data, 18) != (MACHINE_BPF,):
        raise LbnodeError("cannot use the classifier: its object file is not compiled for the kernel")
    sections = _sections(data)
    by_name = {section.name: section.data for section in sections}
    names = by_name[".strtab"]
    symbols = [
        (_text(names, name), section, value)
        for name, _, _, section, value, _ in _SYMBOL.iter_unpack(by_name[".symtab"])
    ]
    place_of_maps = [section.name for section in sections].index(MAPS)
    maps = {
        name: Definition(*_DEFINITION.unpack_from(by_name[MAPS], value))
        for name, section, value in sorted(symbols, key=itemgetter(2))
        if section == place_of_maps and name and name != MAPS
    }
    places = {}
    for offset, what in struct.iter_unpack("<QQ", by_name.get(f".rel{CODE}", b"")):
        name = symbols[what >> 32][0]
        if what & 0xFFFFFFFF != R_BPF_64_64 or name not in maps:
            raise LbnodeError(f"cannot use the classifier: it needs {name or 'something'} that is no map")
        places[offset] = name
    source = by_name.get(SOURCE, b"").rstrip(b"\0").decode()
    return Object(by_name[CODE], by_name[LICENCE].rstrip(b"\0"), maps, places, source)


def _sections(data: bytes) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, index = struct.unpack_from("<HHH", data, 58)
    heads = [_SECTION.unpack_from(data, start + number * size) for number in range(count)]
    bodies = [data[head[4] : head[4] + head[5]] if head[1] != 8 else b"" for head in heads]  # 8: takes no room
    return [_Section(_text(bodies[index], head[0]), body) for head, body in zip(heads, bodies, strict=True)]


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
