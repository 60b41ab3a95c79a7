"""Runs one command on Debian's own kernel with two processors, in QEMU: the second door, for what `uml` cannot show.

user-mode-linux has one processor and never interrupts the kernel: a batch of changes is one instant there, and races
with traffic do not show. It has no nf_tables and no FOU/GUE either. Here all of that is real; in exchange programs are
emulated and 5 to 10 times slower, unless the machine has KVM, and a guest takes 10 s to come up. Times measured in
here are not those of a machine.

The host's file system is the root, by 9p; nothing needs root, KVM or a network.
"""

import os
import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lbnode.lab import boot, debian, guest, initramfs
from lbnode.lab.boot import Launch, Limits
from lbnode.lab.errors import LabError

QEMU = "qemu-system-x86_64"
PROCESSORS = 2
# Speed is all that mitigations would cost; rdinit is found by its usual name.
APPEND = "console=ttyS0 quiet panic=-1 mitigations=off nowatchdog audit=0 selinux=0 apparmor=0"


def run(command: guest.Command, limits: Limits = boot.DEFAULT_LIMITS) -> int:
    """As `boot.run`. The kernel is fetched when it is run for the first time."""
    image = debian.image()
    # Programs make sockets and locks among their temporary files, which are better off in memory than on 9p.
    env = {"TMPDIR": "/dev/shm", **command.env}  # noqa: S108
    return boot.run(Emulated(image), replace(command, env=env), limits)


class Emulated:
    """QEMU with virtio-serial ports for output, errors and signals."""

    name = "QEMU"
    script = Path(__file__).with_name("guest-smp.sh")
    boot_deadline_s = 240.0

    def __init__(self, image: debian.Image) -> None:
        self._image = image
        self._signals: socket.socket | None = None

    def launch(self, work: Path, limits: Limits, out: int, err: int) -> Launch:
        """The emulator's command line; its console goes to standard output. Raises LabError."""
        qemu = shutil.which(QEMU) or shutil.which(QEMU, path=guest.SYSTEM_PATH)
        if qemu is None:
            raise LabError(f"cannot find {QEMU}: apt-get install qemu-system-x86")
        (work / "initramfs").write_bytes(initramfs.build(self._image, work / "init"))
        self._signals, theirs = socket.socketpair()
        argv = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]
        argv += ["-smp", str(PROCESSORS), "-m", str(limits.memory_mb), *_accelerator()]
        argv += ["-kernel", str(self._image.kernel), "-initrd", str(work / "initramfs"), "-append", APPEND]
        argv += ["-device", "virtio-serial-pci"]  # the first of the virtio devices: vport0
        argv += _port(1, f"file,path=/dev/fd/{out}") + _port(2, f"file,path=/dev/fd/{err}")
        argv += _port(3, f"socket,fd={theirs.fileno()}")
        argv += _folder("root") + _folder("live")
        return Launch(argv, {"PATH": guest.SYSTEM_PATH, "TMPDIR": str(work)}, [theirs.detach()])

    def hand_on(self, work: Path, name: str) -> None:  # noqa: ARG002 - the port needs no directory
        """By the third port."""
        if self._signals is not None:
            with suppress(OSError):
                self._signals.sendall(f"{name}\n".encode())


def _accelerator() -> list[str]:
    """KVM where the processor has it and the user may; a /dev/kvm alone may be a kind that boots no ordinary kernel."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and flags & {"vmx", "svm"}:
        return ["-accel", "kvm", "-accel", "tcg,thread=multi", "-cpu", "max"]
    return ["-accel", "tcg,thread=multi", "-cpu", "Nehalem"]  # x86-64-v2; what more it could do costs time


def _folder(tag: str) -> list[str]:
    """The host's root as a 9p share; owners that an ordinary user cannot set are let be (none)."""
    share = f"local,id={tag},path=/,security_model=none,multidevs=remap"
    return ["-fsdev", share, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _port(number: int, channel: str) -> list[str]:
    """The guest's /dev/vport0p<number>."""
    kind, _, options = channel.partition(",")
    return ["-chardev", f"{kind},id=c{number},{options}", "-device", f"virtserialport,chardev=c{number},nr={number}"]
