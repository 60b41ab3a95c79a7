"""The classifier in the kernel: its program and maps, loaded, and pinned in a BPF file system.

    /sys/fs/bpf/lbnode/program-3fa94b1c77aa    the digest of the object file that it is made of
    /sys/fs/bpf/lbnode/map-endpoints           one each
    /sys/fs/bpf/lbnode/table-0                 the tables, which `groups` holds

What is pinned outlives the agent; a program of another version takes over the maps, as long as they are made alike.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from lbnode.chance import bpf, elf
from lbnode.chance.elf import Object
from lbnode.errors import LbnodeError, Missing

OBJECT = Path(__file__).parent / "classifier.o"
TEMPLATE = "table"
"""The map that only says what the tables in `groups` are like."""
REASONS = ("socket", "cookie", "new", "forwarded", "forwarded-again", "alone", "two-hops", "stranger", "odd")
"""The counters, in the order of classifier.c."""
DAMAGED = "damaged"


@cache
def built() -> tuple[Object, str]:
    """What this lbnode has to offer, and its digest. Raises Missing, LbnodeError."""
    try:
        content = OBJECT.read_bytes()
    except OSError as error:
        raise Missing(f"cannot read the classifier {OBJECT}: {error.strerror}") from error
    return elf.parse(content), hashlib.sha256(content).hexdigest()[:12]


class Opened:
    """Descriptors that are closed with the block."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self.maps: dict[str, int] = {}

    def keep(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        return descriptor

    def pinned(self, name: str) -> int | None:
        """None when nothing is. Raises OSError."""
        try:
            return self.keep(bpf.get(self._folder / name))
        except FileNotFoundError:
            return None


@contextmanager
def opened(folder: Path) -> Iterator[Opened]:
    """The maps that are pinned and made as this lbnode wants them, by name. Raises OSError."""
    with ExitStack() as stack:
        found = Opened(stack, folder)
        for name, definition in _pinned_maps(built()[0]).items():
            descriptor = found.pinned(f"map-{name}")
            if descriptor is not None and bpf.info_of_map(descriptor).definition == definition:
                found.maps[name] = descriptor
        yield found


def whole(found: Opened) -> bool:
    """Whether all the maps are there."""
    return found.maps.keys() == _pinned_maps(built()[0]).keys()


def program_of(folder: Path, found: Opened) -> tuple[str, int]:
    """The digest and descriptor of the program that is pinned, which uses these very maps. ("", 0): none is;
    (DAMAGED, 0): there is something else."""
    names = sorted(path.name for path in folder.glob("program-*"))
    if not names:
        return (DAMAGED, 0) if found.maps or folder.is_dir() else ("", 0)
    descriptor = found.pinned(names[0]) if len(names) == 1 and whole(found) else None
    if descriptor is None:
        return DAMAGED, 0
    numbers = {bpf.info_of_map(one).id for one in found.maps.values()}
    if set(bpf.info_of_program(descriptor).maps) != numbers:
        return DAMAGED, 0
    return names[0].removeprefix("program-"), descriptor


def install(folder: Path) -> None:
    """Loads the program and pins it; maps that are there already are taken over. Raises OSError, LbnodeError."""
    object_, digest = built()
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder) as found:
        if not found.maps:
            _forget_tables(folder)
        descriptors = dict(found.maps)
        for name, descriptor in _made(object_, descriptors).items():
            descriptors[name] = found.keep(descriptor)
            if name != TEMPLATE:
                _pin(folder / f"map-{name}", descriptor)
        program = found.keep(bpf.load("second_chance", object_.linked(descriptors), object_.licence))
        for path in folder.glob("program-*"):
            path.unlink()
        bpf.pin(folder / f"program-{digest}", program)


def remove(folder: Path) -> None:
    """Unpins everything; the kernel forgets what no filter uses. Raises OSError."""
    with suppress(FileNotFoundError):
        for path in list(folder.iterdir()):
            path.unlink()
        folder.rmdir()


def load_only() -> tuple[int, dict[str, int]]:
    """The program and its maps, with nothing pinned: to try whether it can be, and to measure. The caller closes the
    descriptors. Raises OSError, LbnodeError."""
    object_, _ = built()
    maps = _made(object_, {})
    try:
        return bpf.load("second_chance", object_.linked(maps), object_.licence), maps
    except OSError:
        for descriptor in maps.values():
            os.close(descriptor)
        raise


def counters(folder: Path) -> dict[str, int]:
    """How many packets, by reason, of all processors; nothing where there is no classifier. Raises OSError."""
    with opened(folder) as found:
        descriptor = found.maps.get("counters")
        return {} if descriptor is None else read_counters(descriptor)


def seen(folder: Path) -> dict[str, int]:
    """The same; nothing where it cannot be read."""
    try:
        return counters(folder)
    except (OSError, LbnodeError):
        return {}


def read_counters(descriptor: int) -> dict[str, int]:
    size = 8 * bpf.processors()
    counted = {}
    for number, reason in enumerate(REASONS):
        values = bpf.lookup(descriptor, number.to_bytes(4, "little"), size) or b""
        counted[reason] = sum(int.from_bytes(values[at : at + 8], "little") for at in range(0, len(values), 8))
    return counted


def _pinned_maps(object_: Object) -> dict[str, elf.Definition]:
    return {name: definition for name, definition in object_.maps.items() if name != TEMPLATE}


def _made(object_: Object, there: Mapping[str, int]) -> dict[str, int]:
    """Those that are not there yet; the template always."""
    made: dict[str, int] = {}
    for name, definition in object_.maps.items():
        if name not in there:
            made[name] = bpf.create(name, definition, made[TEMPLATE] if definition.kind == bpf.ARRAY_OF_MAPS else 0)
    return made


def _pin(path: Path, descriptor: int) -> None:
    try:
        bpf.pin(path, descriptor)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        path.unlink()  # one that is made otherwise
        bpf.pin(path, descriptor)


def _forget_tables(folder: Path) -> None:
    for path in folder.glob("table-*"):
        path.unlink()
