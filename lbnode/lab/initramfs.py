"""The first file system of a QEMU guest: busybox, a few modules, and a script that mounts the host's root by 9p.

A few hundred kilobytes that exist only to reach the real root, so they are written here, as the kernel reads them:
cpio's "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import lzma
import shlex
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from lbnode.lab import guest
from lbnode.lab.debian import Image
from lbnode.lab.errors import LabError

MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p")
# What the guest keeps of the host's files need not be looked up again (loose); only the guest changes them meanwhile.
ROOT = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
SCRIPT = """#!/bin/busybox sh
for module in {loads}; do /bin/busybox insmod "/$module" || echo "cannot load $module"; done
/bin/busybox mount -t 9p -o {options} root /root
export modules={modules}
exec /bin/busybox switch_root /root {init}
"""


def build(image: Image, init: Path) -> bytes:
    """The archive for this kernel; `init` is what becomes process 1 in the host's file system. Raises LabError."""
    busybox = _busybox()
    loads = _loads(image)
    script = SCRIPT.format(
        loads=" ".join(shlex.quote(path.name) for path in loads),
        options=ROOT,
        modules=shlex.quote(str(image.modules)),
        init=shlex.quote(str(init)),
    )
    entries = [("bin", stat.S_IFDIR | 0o755, b""), ("root", stat.S_IFDIR | 0o755, b"")]
    entries += [("dev", stat.S_IFDIR | 0o755, b"")]
    entries += [("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())]
    entries += [(path.name, stat.S_IFREG | 0o644, _plain(path)) for path in loads]
    entries += [("init", stat.S_IFREG | 0o755, script.encode())]
    return archive(entries)


def archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Files and directories (name, mode with type, contents), all root's, as a cpio archive."""
    parts = []
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields) + path
        parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]
    return b"".join(parts)


def _busybox() -> Path:
    found = shutil.which("busybox", path=guest.SYSTEM_PATH)
    if found is None:
        raise LabError("cannot find busybox: apt-get install busybox-static")
    path = Path(found)
    if b"/ld-linux" in path.read_bytes()[:4096]:
        raise LabError(f"cannot use {path}: it is not the static one (apt-get install busybox-static)")
    return path


def _loads(image: Image) -> list[Path]:
    """The modules and all they need, in the order of loading (modules.dep(5): each after what it needs, reversed)."""
    needs: dict[str, list[str]] = {}
    for line in (image.modules / "modules.dep").read_text().splitlines():
        module, _, rest = line.partition(":")
        needs[Path(module).name.split(".")[0].replace("-", "_")] = [module, *rest.split()]
    order: list[str] = []
    for name in MODULES:
        order += [path for path in reversed(needs.get(name, [])) if path not in order]
    return [image.modules / path for path in order]


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
