"""What the checks need to know of the host, read from /proc, /sys, /lib/modules and netlink. It changes nothing.

pyroute2 is imported only when used: it takes 0.1 s.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lbnode.bgp import exabgp
from lbnode.bgp.inotify import Watch
from lbnode.doctor.modules import State
from lbnode.doctor.packets import Way
from lbnode.doctor.rights import Inotify
from lbnode.doctor.rules import NfTables
from lbnode.errors import LbnodeError, Missing
from lbnode.net import addresses, nfnetlink, nftables

PROC_SYS = Path("/proc/sys")
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Uplink:
    """A device with its MTU; of interest are those that hold the node's own addresses."""

    device: str
    mtu: int


@dataclass(frozen=True)
class DefaultRoute:
    """`advmss` is 0 when the route names none."""

    advmss: int


def running(names: Iterable[str], processes: Path = Path("/proc")) -> set[str]:
    """Which programs run, by the kernel's names for them (proc_pid_comm(5))."""
    wanted, found = set(names), set()
    for comm in processes.glob("[0-9]*/comm"):
        with suppress(OSError):  # it has just ended
            found |= wanted & {comm.read_text().strip()}
    return found


def modules(names: Iterable[str], tree: Path, loaded: Path = Path("/sys/module")) -> dict[str, State]:
    """The state of each module. `tree` is /lib/modules/RELEASE."""
    built_in, loadable = _listed(tree / "modules.builtin"), _listed(tree / "modules.dep")

    def state(name: str) -> State:
        if built_in is not None and name in built_in:
            return "built-in"
        if (loaded / name).exists():
            return "loaded"
        if loadable is None:
            return "unknown"
        return "loadable" if name in loadable else "missing"

    return {name: state(name) for name in names}


def _listed(file: Path) -> set[str] | None:
    """The modules named in a file of depmod(8): a path first in each line, such as `kernel/net/ipv4/ipip.ko.xz:`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return {line.partition(":")[0].rpartition("/")[2].partition(".")[0].replace("-", "_") for line in lines}


def setting(name: str, root: Path = PROC_SYS) -> int | None:
    """A kernel setting that is one number, by its name with slashes; None when there is none."""
    try:
        return int((root / name).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LbnodeError(f"cannot read {root / name}: {error}") from error


def uplinks(own: Iterable[str]) -> dict[str, Uplink]:
    """Which device holds each of these addresses; an address that no device holds is left out. Raises OSError."""
    assigned = {one.address: one.index for one in addresses.dump()}
    with _netlink() as route:
        links = _links(route)
    return {address: links[assigned[address]] for address in own if assigned.get(address) in links}


def _links(route: Any) -> dict[int, Uplink]:
    """All devices by index."""
    return {
        message["index"]: Uplink(message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_MTU"))
        for message in route.link("dump")
    }


def ways(targets: Sequence[str]) -> list[Way]:
    """How the kernel would reach each address, with the path MTU that it has learned, if any. Raises OSError."""
    from pyroute2 import NetlinkError

    with _netlink() as route:
        links = _links(route)
        found = []
        for target in targets:
            try:
                (answer, *_) = route.route("get", dst=target)
            except NetlinkError:
                found.append(Way(target))
                continue
            link = links[answer.get_attr("RTA_OIF")]
            found.append(Way(target, link.device, answer.get_nested("RTA_METRICS", "RTAX_MTU") or link.mtu))
    return found


def default_route(version: int) -> DefaultRoute | None:
    """The default route of one family in the main table. Raises OSError."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with _netlink() as route:
        found = list(route.get_default_routes(family=family, table=254))
    return DefaultRoute(found[0].get_nested("RTA_METRICS", "RTAX_ADVMSS") or 0) if found else None


@contextmanager
def _netlink() -> Iterator[Any]:
    """Errors are OSErrors, as those of every other system call."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error


def nf_tables() -> NfTables:
    """What it has of it. The table that is tried is not made."""
    try:
        nfnetlink.try_table(nftables.TABLE)
    except OSError as error:
        if error.errno not in nfnetlink.NO_NF_TABLES:
            raise
        return NfTables(kernel=False, program=bool(shutil.which("nft")))
    return NfTables(kernel=True, program=bool(shutil.which("nft")))


def capabilities() -> int:
    """CapEff of this process."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1], 16) if found else 0


def write_problem(directory: Path) -> str:
    """Why this process cannot write into a directory, or make it; "" when it can."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not there.is_dir():
        return f"{there} is not a directory"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is on a read-only file system"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written by uid {os.geteuid()}"


def inotify() -> Inotify:
    """The limits, and whether one more watch can be had: one is taken and given back."""
    refused = ""
    try:
        Watch(Path("/")).close()
    except OSError as error:
        refused = str(error.strerror)
    instances, watches = setting("fs/inotify/max_user_instances"), setting("fs/inotify/max_user_watches")
    return Inotify(instances or 0, watches or 0, refused)


def exabgp_version() -> tuple[int, int] | None:
    """(major, minor) of the ExaBGP that lbnode would start; None when there is none."""
    try:
        program = exabgp.program()
        # The one beside lbnode need not be started for that, which takes a third of a second.
        beside = Path(program).parent == Path(sys.executable).parent
        said = metadata.version("exabgp") if beside else _said(program)
    except (Missing, FileNotFoundError, metadata.PackageNotFoundError):
        return None
    found = re.search(r"\b(\d+)\.(\d+)", said)
    if found is None:
        raise LbnodeError(f"cannot read ExaBGP's version from {said.strip()[:100]!r}")
    return int(found[1]), int(found[2])


def _said(program: str) -> str:
    """What a program says to `--version` (ExaBGP 4.2), else to `version` (5.0)."""
    text = ""
    for word in ("--version", "version"):
        try:
            done = subprocess.run([program, word], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise LbnodeError(f"cannot ask {program} for its version: no answer in {_TIMEOUT_S:.0f} s") from error
        text = done.stdout + done.stderr
        if found := re.search(r"ExaBGP\s*:\s*(\S+)", text):
            return found[1]
    return text
