"""The one door to a kernel that can run labs and kernel tests: the running one when it can, else user-mode-linux.

Where two processors are wanted, it is asked for, and always a guest: `smp`.

What a lab needs is tried, not looked up: a node is made, links of each kind are created in it, the BPF program is
attached. A container may have the modules and lack the permission, or the other way round, and only trying tells.

    python -m lbnode.lab.kernel -- COMMAND [ARGUMENT...]        # as `lbnode lab kernel -- COMMAND`
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lbnode.lab import boot, guest, native, smp, uml
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

CHOICE = "LBNODE_LAB_KERNEL"
CHOICES = ("native", "uml", "smp")
SCHEDULERS = ("ip_vs", "ip_vs_mh")
LINKS = ("ipip", "ip6tnl", "dummy", "veth", "bridge")


def missing() -> list[str]:
    """What the running kernel and user lack for labs, one reason each; empty when labs can run natively."""
    if os.geteuid() != 0:
        return ["root: namespaces, IPVS and links are the administrator's"]
    try:
        with Node("probe") as probe:
            reasons = [f"kernel module {name}" for name in SCHEDULERS if not _has_module(name)]
            return reasons + _refused_by(probe)
    except LabError as error:
        return [f"namespaces: {error}"]


def _has_module(name: str) -> bool:
    if Path("/sys/module", name).exists():
        return True
    modprobe = shutil.which("modprobe", path=guest.SYSTEM_PATH)
    if modprobe is None:
        return False
    return subprocess.run([modprobe, "-q", name], capture_output=True, check=False).returncode == 0


def _refused_by(probe: Node) -> list[str]:
    from pyroute2.netlink.exceptions import NetlinkError

    from lbnode.lab import ecmp, links

    reasons = []
    for kind in LINKS:
        try:
            links.create(probe, f"probe-{kind}", kind)
        except NetlinkError as error:
            reasons.append(f"links of kind {kind}: {os.strerror(error.code)}")
    try:
        ecmp.rehash(probe, ["lo"])
    except (OSError, NetlinkError) as error:
        reasons.append(f"BPF programs on ingress: {error}")
    return reasons


def chosen() -> str:
    """Whose kernel commands run on: one of CHOICES. Raises LabError for an unknown LBNODE_LAB_KERNEL."""
    choice = os.environ.get(CHOICE, "")
    if choice not in {"", *CHOICES}:
        raise LabError(f"cannot choose a kernel: {CHOICE}={choice!r} is none of {', '.join(CHOICES)}")
    return choice or ("uml" if missing() else "native")


def run(
    argv: Sequence[str], limits: boot.Limits = boot.DEFAULT_LIMITS, shared: Sequence[Path] = (), choice: str = ""
) -> int:
    """Runs a command, with the caller's directory and environment, on a kernel that can; returns its exit status.

    `shared` names directories the command must see as they are outside, even below /run; `choice` is one of CHOICES
    (else the environment or the machine decides). Raises LabError.
    """
    cwd = Path.cwd()
    kind = choice or chosen()
    if kind == "native":
        return native.run(argv, cwd, os.environ, limits.seconds)
    command = guest.Command(tuple(argv), cwd, os.environ, tuple(shared))
    return smp.run(command, limits) if kind == "smp" else uml.run(command, limits)


def main(arguments: Sequence[str]) -> int:
    """The command line: everything after an optional `--` is the command."""
    argv = list(arguments[1:] if arguments[:1] == ["--"] else arguments)
    if not argv:
        sys.stderr.write("usage: python -m lbnode.lab.kernel -- COMMAND [ARGUMENT...]\n")
        return 2
    try:
        return run(argv)
    except LabError as error:
        sys.stderr.write(f"lbnode lab: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
