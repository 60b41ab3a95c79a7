"""A Debian kernel to boot in QEMU: fetched with apt and unpacked into the user's cache, never installed.

The generic kernel is wanted: it knows 9p, which the cloud kernel does not. Fetching needs no root, only package lists.
Drivers of hardware that QEMU does not have are left out, three quarters of it.

    ~/.cache/lbnode/smp/linux-image-6.1.0-56-amd64/boot/vmlinuz-6.1.0-56-amd64
                                                   lib/modules/6.1.0-56-amd64/
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab import guest
from lbnode.lab.errors import LabError

META = "linux-image-amd64"
DRIVERS = ("virtio", "block", "char", "net")


@dataclass(frozen=True)
class Image:
    """A kernel, its version as `uname -r` says it, and the directory with its modules."""

    version: str
    kernel: Path
    modules: Path


def image(environ: Mapping[str, str] = os.environ) -> Image:
    """The kernel in the cache, the newest if there are several; fetched when there is none. Raises LabError."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lbnode", "smp")
    kept = sorted(cache.glob("linux-image-*"), key=lambda path: path.stat().st_mtime)
    return _found_in(kept[-1] if kept else _fetch(cache))


def _found_in(directory: Path) -> Image:
    for kernel in directory.glob("boot/vmlinuz-*"):
        version = kernel.name.removeprefix("vmlinuz-")
        for modules in (directory / "lib/modules" / version, directory / "usr/lib/modules" / version):
            if (modules / "modules.dep").is_file():
                return Image(version, kernel, modules)
    raise LabError(f"cannot use the kernel in {directory}: it is not whole; delete the directory, it is fetched again")


def _fetch(cache: Path) -> Path:
    depends = _output(["apt-cache", "depends", META], Path.cwd())
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if package is None:
        raise LabError(f"cannot find a kernel for QEMU: apt knows no {META} (apt-get update)")
    sys.stderr.write(f"lbnode lab: fetching {package[1]}, once, into {cache}\n")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as directory:
        work = Path(directory)
        # As root apt would give the download to a user of its own, who cannot write here.
        _output(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package[1]], work)
        archive = next(work.glob("*.deb"))
        whole = work / "whole"
        _unpack(archive, whole)
        version = next(whole.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
        depmod = shutil.which("depmod", path=guest.SYSTEM_PATH)
        _output([depmod or "depmod", "-b", str(whole), version], work)
        try:
            whole.rename(cache / package[1])
        except OSError:  # somebody else was faster
            _found_in(cache / package[1])
    return cache / package[1]


def _unpack(archive: Path, target: Path) -> None:
    """All but the drivers of hardware. Raises LabError."""
    _output(["dpkg-deb", "-x", str(archive), str(target)], target.parent)
    for path in target.glob("**/modules/*/kernel/drivers/*"):
        if path.name not in DRIVERS:
            shutil.rmtree(path)
    for path in [*target.glob("**/kernel/drivers/net/ethernet"), *target.glob("**/kernel/drivers/net/wireless")]:
        shutil.rmtree(path)


def _output(argv: list[str], cwd: Path) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(f"cannot fetch a kernel for QEMU: {argv[0]} is not installed") from error
    if done.returncode != 0:
        raise LabError(f"cannot fetch a kernel for QEMU: {' '.join(argv[:2])}: {done.stderr.strip()}")
    return done.stdout
