"""bpf(2), as far as the classifier needs it: maps, programs, pins. No libbpf: a node needs nothing but the kernel.

Sources: bpf(2), include/uapi/linux/bpf.h (`union bpf_attr`, whose members are packed here), kernel/bpf/syscall.c.
Every call raises OSError with the kernel's errno. Descriptors are the caller's to close.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lbnode.chance.elf import Definition

SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}
CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, LOAD, PIN, GET, TEST_RUN = 0, 1, 2, 3, 4, 5, 6, 7, 10
INFO, LOOKUP_BATCH, UPDATE_BATCH = 15, 24, 26
ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS = 2, 6, 12
SCHED_CLS = 3
WORDS_MAX = 1 << 16
"""Bytes of the verifier's words that are kept: the last of them say why."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Info:
    """What the kernel says of a program: its number and those of its maps."""

    id: int
    maps: tuple[int, ...] = ()


class MapInfo(NamedTuple):
    """What the kernel says of a map."""

    id: int
    definition: Definition


class Run(NamedTuple):
    """What a program made of a packet: its answer, the packet afterwards, nanoseconds for one run."""

    answer: int
    data: bytes
    ns: int


def create(name: str, definition: Definition, inner: int = 0) -> int:
    """A map's descriptor. `inner`: for an array of maps, a map like those that it will hold."""
    return _call(CREATE, struct.pack("<IIIIIII16s", *definition, inner, 0, name.encode()[:15]))


def update(map_: int, key: bytes, value: bytes) -> None:
    keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    _call(UPDATE, struct.pack("<IxxxxQQQ", map_, _at(keys), _at(values), 0))


def delete(map_: int, key: bytes) -> None:
    keys = ctypes.create_string_buffer(key, len(key))
    _call(DELETE, struct.pack("<IxxxxQQQ", map_, _at(keys), 0, 0))


def lookup(map_: int, key: bytes, size: int) -> bytes | None:
    """The value, `size` bytes (for each possible processor, where the map is per processor); None: there is none."""
    keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    try:
        _call(LOOKUP, struct.pack("<IxxxxQQQ", map_, _at(keys), _at(values), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return values.raw


def keys(map_: int, size: int) -> Iterator[bytes]:
    """Every key, as far as the map does not change meanwhile."""
    last, found = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    before = 0
    while True:
        try:
            _call(NEXT_KEY, struct.pack("<IxxxxQQQ", map_, before, _at(found), 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield found.raw
        ctypes.memmove(last, found, size)
        before = _at(last)


def write_array(map_: int, values: bytes, size: int) -> None:
    """All entries of an array, `size` bytes each, in one call."""
    count = len(values) // size
    numbers = ctypes.create_string_buffer(struct.pack(f"<{count}I", *range(count)))
    content = ctypes.create_string_buffer(values, len(values))
    _call(UPDATE_BATCH, struct.pack("<QQQQIIQQ", 0, 0, _at(numbers), _at(content), count, map_, 0, 0))


def read_array(map_: int, count: int, size: int) -> bytes:
    """All entries of an array, one after another."""
    numbers, content = ctypes.create_string_buffer(4 * count), ctypes.create_string_buffer(count * size)
    after = ctypes.create_string_buffer(4)
    try:
        _call(LOOKUP_BATCH, struct.pack("<QQQQIIQQ", 0, _at(after), _at(numbers), _at(content), count, map_, 0, 0))
    except OSError as error:
        if error.errno != errno.ENOENT:  # says that these were the last
            raise
    return content.raw


def load(name: str, code: bytes, licence: bytes) -> int:
    """A classifier's descriptor. The error holds the verifier's words when it refuses."""
    instructions, words = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(WORDS_MAX)
    terms = ctypes.create_string_buffer(licence)

    def attempt(level: int) -> int:
        size, at = (len(words), _at(words)) if level else (0, 0)
        head = (SCHED_CLS, len(code) // 8, _at(instructions), _at(terms), level, size, at, 0, 0, name.encode()[:15])
        return _call(LOAD, struct.pack("<IIQQIIQII16s", *head))

    try:
        return attempt(0)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.E2BIG):
            raise
        refused = error
    with suppress(OSError):
        return attempt(1)
    told = words.value.decode(errors="replace").strip().splitlines()[-3:]
    raise OSError(refused.errno, f"{refused.strerror}: {' / '.join(told)}")


def run(program: int, packet: bytes, repeat: int = 1) -> Run:
    """Runs a classifier on a packet, from its Ethernet header on."""
    given, made = ctypes.create_string_buffer(packet, len(packet)), ctypes.create_string_buffer(len(packet) + 256)
    head = (program, 0, len(packet), len(made), _at(given), _at(made), repeat, 0)
    attributes = ctypes.create_string_buffer(struct.pack("<IIIIQQIIIIQQ", *head, 0, 0, 0, 0))
    _call_in_place(TEST_RUN, attributes)
    _, answer, _, size, _, _, _, ns = struct.unpack_from("<IIIIQQII", attributes)
    return Run(answer - (1 << 32) if answer >> 31 else answer, made.raw[:size], ns)


def pin(path: Path, descriptor: int) -> None:
    """Gives a map or program a name in a BPF file system, where it outlives us. EEXIST when there is one."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _call(PIN, struct.pack("<QII", _at(name), descriptor, 0))


def get(path: Path) -> int:
    """The descriptor of what is pinned there. ENOENT when nothing is."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _call(GET, struct.pack("<QII", _at(name), 0, 0))


def info_of_map(descriptor: int) -> MapInfo:
    """struct bpf_map_info."""
    kind, number, *rest = struct.unpack_from("<6I", _info(descriptor, 64))
    return MapInfo(number, Definition(kind, *rest))


def info_of_program(descriptor: int) -> Info:
    """struct bpf_prog_info: number at 4, count and place of the maps' numbers at 52 and 56."""
    numbers = ctypes.create_string_buffer(4 * 64)
    asked = bytearray(128)
    struct.pack_into("<IQ", asked, 52, 64, _at(numbers))
    told = _info(descriptor, len(asked), bytes(asked))
    (count,) = struct.unpack_from("<I", told, 52)
    return Info(struct.unpack_from("<I", told, 4)[0], struct.unpack_from(f"<{min(count, 64)}I", numbers))


def processors() -> int:
    """How many a per-processor map has values for: /sys/devices/system/cpu/possible, such as `0-7`."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return int(text.replace(",", "-").split("-")[-1]) + 1


def _info(descriptor: int, size: int, asked: bytes = b"") -> bytes:
    told = ctypes.create_string_buffer(asked, size)
    _call(INFO, struct.pack("<IIQ", descriptor, size, _at(told)))
    return told.raw


def _at(buffer: "ctypes.Array[ctypes.c_char]") -> int:
    return ctypes.addressof(buffer)


def _call(command: int, attributes: bytes) -> int:
    return _call_in_place(command, ctypes.create_string_buffer(attributes, len(attributes)))


def _call_in_place(command: int, attributes: "ctypes.Array[ctypes.c_char]") -> int:
    number = SYSTEM_CALL.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {os.uname().machine} is not known here")
    result = int(_libc.syscall(number, command, attributes, len(attributes)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
