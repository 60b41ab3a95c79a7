"""Connecting as a probe: from the right address, with the right mark, and telling whose fault a failure is.

A probe with a mark of IPVS goes through a virtual service of its own to one real server. What IPVS remembers of it is
found again by addresses and ports alone, whatever the mark says (net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_in_get):
a port that one real server did not answer on leads to that server for a minute, whoever uses it. So such a port stays
with its probe (`Ports`). A connection that was made is ended by a RST: IPVS forgets it after 10 s instead of 120 s, may
use its port for anybody at once (sysctl conn_reuse_mode), and no socket waits on either side.
"""

import asyncio
import errno
import os
import resource
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field

from lbnode.health.state import DIRECT_MARK, Probe

END_BY_RST = struct.pack("ii", 1, 0)  # struct linger: on, 0 s (socket(7))
HELD_S = 61.0
"""IPVS keeps an unanswered SYN for 60 s (net/netfilter/ipvs/ip_vs_proto_tcp.c, IP_VS_TCP_S_SYN_RECV)."""
TRIES = 16
FROM_OUTSIDE = {errno.ECONNREFUSED, errno.ECONNRESET}
"""What connect(2) can say at once and still mean the target: it is this node, or as near as loopback."""
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENETDOWN}
SPARE_DESCRIPTORS = 256
"""For all else that the process does."""

Way = tuple[int, str, str, int]


class Unable(Exception):
    """This node could not ask, which says nothing about the target."""


@dataclass
class Attempt:
    """One go at a probe. `met`: somebody took the connection. `source`: the address it was asked from, once known."""

    probe: Probe
    met: bool = False
    source: str = ""


class Connection(socket.socket):
    """A TCP socket of a probe. Once connected it may be given to a library that connects by itself."""

    met = False

    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        if not self.met:
            super().connect(address)


@dataclass
class Ports:
    """Which local ports belong to probes that got no connection, and until when (seconds of the event loop's clock)."""

    _kept: dict[Way, int] = field(default_factory=dict)
    _held: dict[int, tuple[Way, float]] = field(default_factory=dict)

    def keep(self, way: Way, port: int, now: float) -> None:
        """No connection from this port: it is this probe's next time, and nobody else's until IPVS has forgotten it."""
        self._held = {port: held for port, held in self._held.items() if held[1] > now}
        self._kept[way], self._held[port] = port, (way, now + HELD_S)

    def taken(self, way: Way) -> int:
        """The port to use again; 0 if any will do."""
        return self._kept.pop(way, 0)

    def release(self, way: Way, port: int) -> None:
        """A connection was made from this port."""
        if self._held.get(port, (None, 0.0))[0] == way:
            del self._held[port]

    def free(self, way: Way, port: int, now: float) -> bool:
        owner, until = self._held.get(port, (way, 0.0))
        return owner == way or until <= now


async def connect(attempt: Attempt, ports: Ports) -> Connection:
    """A connection to the probe's address. Raises Unable, and OSError when the target or the way to it is at fault."""
    probe, loop = attempt.probe, asyncio.get_running_loop()
    try:
        made = _bound(probe, ports, loop.time())
    except OSError as error:
        raise Unable(words(error)) from error
    try:
        await _connected(made, probe)
    except BaseException:
        with suppress(OSError):
            attempt.source, port = made.getsockname()[:2]
            if probe.mark != DIRECT_MARK:
                ports.keep(_way(probe), port, loop.time())
        made.close()
        raise
    attempt.met = made.met = True
    if probe.mark != DIRECT_MARK:
        ports.release(_way(probe), made.getsockname()[1])
    return made


async def _connected(made: Connection, probe: Probe) -> None:
    address = (probe.address, probe.port)
    code = made.connect_ex(address)
    if code == errno.EINPROGRESS:
        await asyncio.get_running_loop().sock_connect(made, address)
    elif code in FROM_OUTSIDE:
        raise OSError(code, os.strerror(code))
    elif code:
        # Nothing can have come from elsewhere yet: this node has no way, no address, no port, or forbids it.
        raise Unable(words(OSError(code, os.strerror(code))))


def _bound(probe: Probe, ports: Ports, now: float) -> Connection:
    """From a port that IPVS does not take for another real server's. Raises OSError, Unable."""
    if not probe.source:
        return _marked(probe)
    way, tried = _way(probe), []
    wanted = [port for port in (ports.taken(way),) if port] + [0] * TRIES
    try:
        for port in wanted:
            made = _marked(probe)
            tried.append(made)
            try:
                made.bind((probe.source, port))
            except OSError as error:
                if port and error.errno == errno.EADDRINUSE:
                    continue
                raise
            if probe.mark == DIRECT_MARK or ports.free(way, made.getsockname()[1], now):
                tried.pop()
                return made
    finally:
        for made in tried:
            made.close()
    raise Unable(f"no free port of {probe.source}: too many unanswered probes hold one")


def _marked(probe: Probe) -> Connection:
    """Without CAP_NET_ADMIN (or CAP_NET_RAW) a direct probe has no mark, and finds failed servers down."""
    made = Connection(socket.AF_INET6 if ":" in probe.address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, END_BY_RST)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, probe.mark)
        except PermissionError:
            if probe.mark != DIRECT_MARK:
                raise Unable("a probe through a tunnel needs root (CAP_NET_ADMIN)") from None
    except BaseException:
        made.close()
        raise
    return made


def _way(probe: Probe) -> Way:
    return (probe.mark, probe.source, probe.address, probe.port)


def words(error: OSError) -> str:
    """`too many open files (EMFILE)`."""
    code = error.errno or 0
    name = errno.errorcode.get(code, str(code))
    return f"{os.strerror(code).lower()} ({name})" if code else str(error)


def most_at_once() -> int:
    """How many probes may have a descriptor at the same time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, soft - SPARE_DESCRIPTORS) if soft != resource.RLIM_INFINITY else 1 << 20
