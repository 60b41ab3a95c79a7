"""The few system calls that Python 3.11 does not offer: unshare, setns, mount and sethostname's prerequisites.

Each raises OSError with the errno and what was attempted. Flags are those of <linux/sched.h> and <linux/mount.h>.
"""

import ctypes
import os

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Moves the calling thread into new namespaces (CLONE_NEWPID: its future children)."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    """Moves the calling thread into the namespace behind a descriptor (CLONE_NEWPID: its future children)."""
    _check(_libc.setns(descriptor, kind), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """mount(2); `kind` None for changes of propagation."""
    filesystem = kind.encode() if kind is not None else None
    result = _libc.mount(source.encode(), target.encode(), filesystem, flags, options.encode() or None)
    _check(result, f"mount {kind or 'flags'} on {target}")
