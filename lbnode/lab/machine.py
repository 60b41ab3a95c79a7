"""The making of a node: its namespaces, what is mounted in them, and the process that holds them.

All of it happens in one thread that moves into new namespaces step by step and then ends; the lab process itself stays
where it is. The holder is a shell that becomes process 1 of the node, mounts /proc (which shows the processes of
whoever mounts it) and waits for the end of its input. It ignores SIGCHLD, so that the kernel reaps orphans.
"""

import fcntl
import os
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab import libc, program
from lbnode.lab.errors import LabError

# dash's own `read` ends when an orphan does.
HOLDER = 'trap "" CHLD INT TERM HUP; mount -t proc proc /proc && echo ready && exec cat'
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

# What a thread must enter to be in a node. Mounts come last: entering those changes its root directory.
KINDS = {
    "net": libc.CLONE_NEWNET,
    "uts": libc.CLONE_NEWUTS,
    "pid_for_children": libc.CLONE_NEWPID,
    "mnt": libc.CLONE_NEWNS,
}


@dataclass(frozen=True)
class Machine:
    """A made node: flag to namespace descriptor, process 1, and the write end of its input."""

    namespaces: dict[int, int]
    holder: subprocess.Popen[bytes]
    lifeline: int


def make(name: str, private: bool) -> Machine:
    """To be called in a thread that does nothing else afterwards. Raises OSError, LabError."""
    libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS | libc.CLONE_NEWUTS | libc.CLONE_NEWPID)
    socket.sethostname(name)
    alive, lifeline = os.pipe2(os.O_CLOEXEC)
    try:
        # The old /proc: the new one does not know this thread, nor /sys the old network.
        task = os.open("/proc/thread-self/ns", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Link-local addresses are usable at once: until they are, a router sends no neighbour solicitation for what it
        # forwards (net/ipv6/ndisc.c, ndisc_solicit()).
        Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        _mount(private)
        _loopback_up()
        holder = program.start(
            ["/bin/sh", "-c", HOLDER],
            stdin=alive,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(alive)
    said = _first_line(holder)
    if said != "ready":
        os.close(lifeline)
        holder.wait()
        raise LabError(said or "its first process died")
    opened = {flag: os.open(kind, os.O_RDONLY | os.O_CLOEXEC, dir_fd=task) for kind, flag in KINDS.items()}
    os.close(task)
    return Machine(opened, holder, lifeline)


def _first_line(process: subprocess.Popen[bytes]) -> str:
    if process.stdout is None:
        return ""
    with process.stdout as answer:
        return answer.readline().decode().strip()


def _mount(private: bool) -> None:
    """The node's own view of the file system. A private /run is mounted twice: the first keeps what /etc is given."""
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("sysfs", "/sys", "sysfs")
    with suppress(OSError):  # a kernel without it
        libc.mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=700")
    if not private:
        return
    flags = libc.MS_NOSUID | libc.MS_NODEV
    libc.mount("tmpfs", "/run", "tmpfs", flags, "mode=755")
    Path("/run/upper").mkdir()
    Path("/run/work").mkdir()
    libc.mount("etc", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/run/upper,workdir=/run/work")
    libc.mount("tmpfs", "/run", "tmpfs", flags, "mode=755")
    Path("/run/lock").mkdir()
    Path("/etc/lb").mkdir(exist_ok=True)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
