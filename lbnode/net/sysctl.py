"""Kernel settings under /proc/sys, as rows: only those that are wanted are looked at, and none is ever removed.

What is below net/ belongs to the network namespace of the process that reads or writes it (net/sysctl_net.c).
"""

import errno
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError, Missing, NotPermitted
from lbnode.plan import Change
from lbnode.resources import Row, Sysctl

# Settings that exist once a module is loaded.
MODULES = {"net.ipv4.vs": "ip_vs"}
MODPROBE_DEADLINE_S = 30


class SysctlDriver:
    """`root` is where the settings are; `modprobe` gets a module's name as its last argument."""

    kinds: tuple[type[Row], ...] = (Sysctl,)

    def __init__(self, root: Path = Path("/proc/sys"), modprobe: Sequence[str] = ("modprobe",)) -> None:
        self.root = root
        self.modprobe = modprobe

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """The wanted settings as they are. One that does not exist (yet: a module, a device) has no row.

        Values that differ in white space alone are the same. Raises NotPermitted, and LbnodeError for what the kernel
        refuses to read.
        """
        rows = [self._read(row) for row in wanted if isinstance(row, Sysctl)]
        return Observed(tuple(row for row in rows if row is not None))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        return [Result(change, self._write(change)) for change in changes]

    def _path(self, name: str) -> Path:
        """As sysctl(8): dots separate, and a slash stands for a dot within a device's name."""
        return self.root / name.translate(str.maketrans("./", "/."))

    def _read(self, row: Sysctl) -> Sysctl | None:
        try:
            value = _normal(self._path(row.name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise NotPermitted(f"cannot read {row.name}: {error.strerror}") from error
        except OSError as error:
            raise LbnodeError(f"cannot read {row.name}: {error.strerror}") from error
        return row if value == _normal(row.value) else Sysctl(row.name, value)

    def _write(self, change: Change) -> str:
        row = cast("Sysctl", change.row)
        if change.new is None:
            return f"cannot remove {row.name}: a kernel setting can be changed but not removed"
        try:
            self._load_module(row)
            with self._path(row.name).open("r+") as file:  # never makes a file
                file.write(row.value)
        except LbnodeError as error:
            return str(error)
        except OSError as error:
            return f"cannot set {row.name} to {row.value}: {_why(error)}"
        return ""

    def _load_module(self, row: Sysctl) -> None:
        """Loads the module that a setting comes with, when it is not there. Raises Missing."""
        module = next((name for prefix, name in MODULES.items() if row.name.startswith(f"{prefix}.")), "")
        if not module or self._path(row.name).parent.exists():
            return
        what = f"cannot set {row.name}: the kernel module {module} is not loaded"
        try:
            loaded = subprocess.run(
                [*self.modprobe, module], capture_output=True, text=True, check=False, timeout=MODPROBE_DEADLINE_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"{what}, and modprobe cannot be run: {error}") from error
        if loaded.returncode != 0:
            raise Missing(f"{what}, and modprobe says: {loaded.stderr.strip() or f'status {loaded.returncode}'}")
        if not self._path(row.name).parent.exists():
            raise Missing(f"{what} in this network namespace, although modprobe loaded it")


def _normal(value: str) -> str:
    return " ".join(value.split())


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "this kernel has no such setting"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror} (that needs root, and a writable /proc/sys)"
    return str(error.strerror)
