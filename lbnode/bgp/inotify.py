"""inotify on one directory, with the standard library only (the relay starts without any package)."""

import ctypes
import os
import struct
from pathlib import Path

MASK = 0x8 | 0x80 | 0x200  # IN_CLOSE_WRITE, IN_MOVED_TO, IN_DELETE (linux/inotify.h)
IGNORED = 0x8000  # IN_IGNORED: the directory is gone, and the watch with it
HEADER = struct.Struct("iIII")


class Watch:
    """Files that are written in a directory, renamed into it, or deleted from it.

    `fd` is readable when there is something to report. Raises OSError when the directory is not there.
    """

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0 or libc.inotify_add_watch(self.fd, os.fsencode(directory), MASK) < 0:
            code = ctypes.get_errno()
            self.close()
            raise OSError(code, os.strerror(code), str(directory))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def names(self) -> set[str] | None:
        """The files reported since the last call; None when there is nothing to watch any more."""
        found: set[str] = set()
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return found
        while data:
            _, mask, _, length = HEADER.unpack_from(data)
            if mask & IGNORED:
                return None
            found.add(os.fsdecode(data[HEADER.size : HEADER.size + length].rstrip(b"\0")))
            data = data[HEADER.size + length :]
        return found
