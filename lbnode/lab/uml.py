"""Runs one command on a user-mode-linux kernel: an ordinary process that is a whole machine, in 2 seconds.

The guest's root is the host's own file system, through hostfs. It has one processor, and programs run in it at nearly
the speed of the host: this is the usual door (`smp` is the other).
"""

import os
import shutil
import socket
import struct
from contextlib import suppress
from pathlib import Path

from lbnode.lab import boot, guest, xstate
from lbnode.lab.boot import Launch, Limits
from lbnode.lab.errors import LabError

KERNEL = "linux.uml"
MCONSOLE_MAGIC = 0xCAFEBABE  # arch/um/include/shared/mconsole.h
MCONSOLE_VERSION = 2


def run(command: guest.Command, limits: Limits = boot.DEFAULT_LIMITS) -> int:
    """As `boot.run`."""
    return boot.run(UserMode(), command, limits)


class UserMode:
    """linux.uml with three console lines: the log, standard output, standard error."""

    name = "user-mode-linux"
    script = Path(__file__).with_name("guest-uml.sh")
    boot_deadline_s = 60.0

    def launch(self, work: Path, limits: Limits, out: int, err: int) -> Launch:
        """The kernel's command line; its log goes to standard output. Raises LabError when it is not installed."""
        kernel = shutil.which(KERNEL) or shutil.which(KERNEL, path=guest.SYSTEM_PATH)
        if kernel is None:
            raise LabError(f"cannot find {KERNEL}: apt-get install user-mode-linux")
        env = {"PATH": guest.SYSTEM_PATH, "TMPDIR": guest.memory_directory(limits.memory_mb, os.environ)}
        if xstate.needed(Path("/proc/cpuinfo").read_text()):
            env["LD_PRELOAD"] = str(xstate.build(work))
        argv = [kernel, f"mem={limits.memory_mb}M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "noreboot"]
        argv += [f"init={work}/init", f"uml_dir={work}", "umid=guest"]
        argv += ["con=null", "ssl=null", "con0=null,fd:1", f"con1=null,fd:{out}", f"con2=null,fd:{err}"]
        return Launch(argv, env, one_processor=True)

    def hand_on(self, work: Path, name: str) -> None:
        """By a file with the signal's name, and ctrl-alt-del, which makes init read it."""
        (work / "signal").write_text(f"{name}\n")
        _mconsole(work / "guest" / "mconsole", b"cad")


def _mconsole(path: Path, request: bytes) -> None:
    """Sends one management request to the guest's kernel; its answer is of no interest."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.bind("")  # an abstract name: the kernel wants an address to answer to
        channel.sendto(struct.pack("=III512s", MCONSOLE_MAGIC, MCONSOLE_VERSION, len(request), request), str(path))
