"""Whether this kernel, and what we may do, allow a second chance: tried, not looked up, where that is possible.

The classifier is loaded, which tells whether bpf(2), the helpers it calls (Linux 5.10) and our rights are there. Only
cls_bpf, which takes it to a device, is looked for: to try it would take a device.
"""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

from lbnode.chance import program
from lbnode.errors import LbnodeError

BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h
MODULES = ("sch_ingress", "cls_bpf")
SYMBOL = " cls_bpf_classify"
MODPROBE_DEADLINE_S = 30

_libc = ctypes.CDLL(None, use_errno=True)
_allowed: set[Path] = set()


def refused(folder: Path) -> str:
    """Why there cannot be a classifier pinned in `folder`; "" when there can. What was good once is not tried again."""
    if folder in _allowed:
        return ""
    why = _refused(folder)
    if not why:
        _allowed.add(folder)
    return why


def _refused(folder: Path) -> str:
    if not _is_bpf(folder.parent):
        return f"there is no BPF file system at {folder.parent}: mount -t bpf bpf {folder.parent}"
    try:
        if not _is_installed(folder):
            loaded, maps = program.load_only()
            for descriptor in (loaded, *maps.values()):
                os.close(descriptor)
    except OSError as error:
        return _words(error)
    except LbnodeError as error:
        return str(error)
    return "" if _has_modules() else f"kernel {os.uname().release} has no cls_bpf (CONFIG_NET_CLS_BPF)"


def _words(error: OSError) -> str:
    release = os.uname().release
    if error.errno == errno.EPERM:
        return "the kernel does not let us load the classifier (that needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)"
    if error.errno == errno.ENOSYS:
        return f"kernel {release} has no bpf(2): {error.strerror}"
    return f"kernel {release} does not take the classifier, which needs Linux 5.10 and CAP_PERFMON: {error.strerror}"


def _is_installed(folder: Path) -> bool:
    with program.opened(folder) as found:
        return program.program_of(folder, found)[0] == program.built()[1]


def _is_bpf(path: Path) -> bool:
    """statfs(2): the type comes first, in a word of the machine."""
    answer = (ctypes.c_long * 32)()
    return _libc.statfs(os.fsencode(path), answer) == 0 and answer[0] & 0xFFFFFFFF == BPF_FS_MAGIC


def _has_modules() -> bool:
    """modprobe succeeds for what is built in as well; where it cannot look, the kernel's own symbols tell."""
    try:
        command = ["modprobe", "-q", "-a", *MODULES]
        if subprocess.run(command, capture_output=True, check=False, timeout=MODPROBE_DEADLINE_S).returncode == 0:
            return True
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        with Path("/proc/kallsyms").open(encoding="ascii", errors="replace") as symbols:
            return any(SYMBOL in line for line in symbols)
    except OSError:
        return False
