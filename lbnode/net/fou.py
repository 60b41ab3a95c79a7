"""UDP ports on which the kernel takes packets out of GUE, as rows.

What comes out goes on to the tunnel device of the family that the outer packet has (ipip, ip6tnl): without the device
it is dropped. With the module fou6, ICMPv6 errors about GUE packets are heard as well.

Nothing in the kernel says who opened a port, so those of this boot's runs are noted as empty files under /run, which is
emptied when the kernel's own state is. Source: net/ipv4/fou_core.c (fou.c before Linux 6.2), net/ipv6/fou6.c.
"""

import errno
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, cast

from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError, Missing
from lbnode.ipvs.netlink import GenericNetlink, Request, attribute, attributes
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import FouPort, Row

ADD, DELETE, GET = 1, 2, 3  # include/uapi/linux/fou.h, FOU_CMD_*
PORT, FAMILY, TYPE = 1, 2, 4  # FOU_ATTR_*
BOUND = {6: "to an address", 7: "to an address", 8: "to a peer", 9: "to a peer", 10: "to a peer", 11: "to a device"}
GUE = 2  # FOU_ENCAP_GUE
FAMILIES: dict[Literal[4, 6], int] = {4: socket.AF_INET, 6: socket.AF_INET6}
MODPROBE_DEADLINE_S = 30


class Opened(NamedTuple):
    """A port as the kernel has it. `limits` is empty for one that takes GUE from everybody."""

    port: FouPort
    limits: str


class FouDriver:
    """Reads and writes FouPort rows of the network namespace of the calling thread."""

    kinds: tuple[type[Row], ...] = (FouPort,)

    def __init__(self, paths: Paths) -> None:
        self._notes = paths.run / "fou"

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """The ports that are wanted, or that this boot's runs have opened. Raises LbnodeError."""
        names = {file.name for file in self._notes.iterdir()} if self._notes.is_dir() else set()
        if not wanted and not names:
            return Observed()
        try:
            with GenericNetlink("fou") as link:
                opened = [_opened(payload) for payload in link.dump(Request(GET))]
        except Missing:
            return Observed()
        ours = [one for one in opened if one.port in wanted or _note(one.port) in names]
        foreign = [f"UDP port {one.port.port} of IPv{one.port.version} ({one.limits})" for one in ours if one.limits]
        return Observed(tuple(one.port for one in ours if not one.limits), tuple(foreign))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """One after the other; loads the module fou when the kernel does not know it yet."""
        try:
            with _open() as link:
                if any(isinstance(change.new, FouPort) and change.new.version == 6 for change in changes):
                    _modprobe("fou6")
                return [Result(change, self._carry_out(link, change)) for change in changes]
        except LbnodeError as error:
            return [Result(change, str(error)) for change in changes]

    def _carry_out(self, link: GenericNetlink, change: Change) -> str:
        row, add = cast("FouPort", change.row), change.new is not None
        (code,) = link.exchange([[Request(ADD if add else DELETE, _attributes(row))]])[0]
        if code and (add or code != errno.ENOENT):
            return _error(row, "open" if add else "close", code)
        note = self._notes / _note(row)
        try:
            if add:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()
            else:
                note.unlink(missing_ok=True)
        except OSError as error:
            return f"cannot note {note}: {error.strerror}"
        return ""


def _note(row: FouPort) -> str:
    return f"ipv{row.version}-{row.port}"


def _attributes(row: FouPort) -> bytes:
    family, port = bytes([FAMILIES[row.version]]), row.port.to_bytes(2, "big")
    return attribute(PORT, port) + attribute(FAMILY, family) + attribute(TYPE, bytes([GUE]))


def _opened(payload: bytes) -> Opened:
    values = attributes(payload)
    version: Literal[4, 6] = 6 if values[FAMILY][0] == socket.AF_INET6 else 4
    limits = [f"bound {words}" for kind, words in BOUND.items() if any(values.get(kind, b""))]
    limits += [] if values[TYPE][0] == GUE else ["not GUE"]
    return Opened(FouPort(version, int.from_bytes(values[PORT], "big")), ", ".join(dict.fromkeys(limits)))


def _error(row: FouPort, verb: str, code: int) -> str:
    what = f"cannot {verb} UDP port {row.port} of IPv{row.version} for GUE"
    if code == errno.EADDRINUSE:
        return f"{what}: another socket has it"
    return f"{what}: {os.strerror(code)}"


def _open() -> GenericNetlink:
    """Raises Missing."""
    try:
        return GenericNetlink("fou")
    except Missing as error:
        if _modprobe("fou"):
            return GenericNetlink("fou")
        what = "cannot take packets out of GUE: the kernel module fou is not loaded"
        raise Missing(f"{what}: modprobe fou") from error


def _modprobe(name: str) -> bool:
    argv = ["modprobe", "--quiet", name]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(argv, capture_output=True, check=False, timeout=MODPROBE_DEADLINE_S).returncode == 0
    return False
