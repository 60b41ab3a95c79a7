"""What flows a node still has: counted until there are none, for `lbnode drain --wait`.

An L7 or backend node counts the TCP connections at the places where clients, or HAProxy, reach it. They are read from
/proc, which every kernel has and every user may read; sock_diag, which `ss` asks, is quicker for 100,000 of them but
needs modules. An L4 node has no connections, and its IPVS entries outlive the flows; so it looks whether packets still
come to its virtual services. An L7 or backend node may also be what other nodes' flows come by, which it sends on; they
count as well. Of UDP and SCTP flows nothing is known on an L7 or backend node.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import NamedTuple

from lbnode.config.model import Cluster, IPAddress
from lbnode.paths import Paths
from lbnode.resources import ServiceKey

Place = tuple[IPAddress, int]
LISTINGS = ("tcp", "tcp6")
LASTING = {"01", "04", "08", "09", "0B"}
"""ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING (include/net/tcp_states.h): something may still be said."""
WINDOW_S = 5.0
"""IPVS adds up what its processors have counted every two seconds (net/netfilter/ipvs/ip_vs_est.c)."""
QUIET_S = 3.0
"""Without a packet for so long, a node that has withdrawn its VIPs has seen the last of them."""


class Left(NamedTuple):
    """What there still is, in words: `3 connections left`, where `connection` is the unit."""

    number: int
    unit: str
    what: str


@dataclass(frozen=True)
class Watch:
    """`look` says what is left; when it has been none for `calm_s` seconds, nothing is. `announced`: how many VIPs the
    node announces, which comes first."""

    look: Callable[[], Left]
    calm_s: float
    announced: Callable[[], int] = lambda: 0


def watch(cluster: Cluster, name: str, paths: Paths) -> Watch:
    """What to look at on that node. Raises LbnodeError, when it is used, where the kernel cannot be asked."""
    settled = 2 * (cluster.probe.interval_s + cluster.probe.timeout_s)  # until every L4 node has read the agent-check
    if cluster.nodes[name].role == "l4":
        wanted = services(cluster)
        packets = Packets(lambda: taken(wanted))
        return Watch(lambda: Left(packets.fresh(), "packet", f"in {WINDOW_S:g} seconds"), max(settled, WINDOW_S))
    ends, on = places(cluster, name), Packets(lambda: sent_on(paths))

    def look() -> Left:
        relayed = on.fresh()
        if found := connections(ends):
            return Left(found, "connection", "left")
        return Left(relayed, "packet", f"of others' flows sent on in {WINDOW_S:g} seconds")

    return Watch(look, settled)


def places(cluster: Cluster, name: str) -> set[Place]:
    """Where an L7 node's clients, or a backend's clients and HAProxy, connect to."""
    node = cluster.nodes[name]
    found: set[Place] = set()
    for service in cluster.services.values():
        if name in cluster.real_servers(service):
            found |= {(vip, port) for vip in service.vips for port in service.ports}
    for pool_name, pool in cluster.pools.items():
        if name in cluster.members(pool_name):
            found |= {(own, pool.port) for own in (node.ipv4, node.ipv6) if own is not None}
    return found


def connections(wanted: Collection[Place], folder: Path = Path("/proc/thread-self/net")) -> int:
    """How many connections that still last have their own end at one of these places."""
    ends = {text for place in wanted for text in _in_proc(*place)}
    found = 0
    for listing in LISTINGS:
        try:
            with (folder / listing).open(encoding="ascii") as lines:
                found += count(lines, ends)
        except FileNotFoundError:  # no IPv6
            continue
    return found


def count(lines: Iterable[str], ends: Collection[str]) -> int:
    """Lines as tcp_seq_show prints them: `0: 0100007F:1F90 00000000:0000 0A ...`, the local end before the other."""
    words = (line.split(None, 4) for line in lines)
    return sum(len(found) > 3 and found[3] in LASTING and found[1] in ends for found in words)


def _in_proc(address: IPAddress, port: int) -> Iterator[str]:
    """Words of four bytes in the machine's order; an IPv4 connection to a socket for both families is mapped."""
    yield _words(address.packed) + f":{port:04X}"
    if isinstance(address, IPv4Address):
        yield _words(ip_address(f"::ffff:{address}").packed) + f":{port:04X}"


def _words(packed: bytes) -> str:
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words)


def services(cluster: Cluster) -> set[ServiceKey]:
    """All virtual services of an L4 node."""
    found: set[ServiceKey] = set()
    for service in cluster.balanced.values():
        for vip in service.vips:
            if service.ipvs.mark is not None:
                found.add(ServiceKey.of_mark(service.ipvs.mark, vip.version))
            found |= {ServiceKey(str(vip), service.protocol, port) for port in service.ports}
    return found


def sent_on(paths: Paths) -> int:
    """The packets that the classifier has sent on, so far: those flows need this node although it has no sockets for
    them. 0 where it cannot be read."""
    from lbnode.chance import program

    counted = program.seen(paths.bpf)
    return counted.get("forwarded", 0) + counted.get("forwarded-again", 0)


class Packets:
    """Tells how many packets came in the last WINDOW_S, as far as that is known; `total` says how many ever came."""

    def __init__(self, total: Callable[[], int]) -> None:
        self._total = total
        self._looks: deque[tuple[float, int]] = deque()

    def fresh(self) -> int:
        now, total = time.monotonic(), self._total()
        self._looks.append((now, total))
        while now - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()
        # Who was made anew has begun to count anew.
        return max(0, total - min(self._looks[0][1], total))


class Since:
    """Tells how many packets came since it was asked last; `close` when done."""

    def __init__(self, total: Callable[[], int], close: Callable[[], None] = lambda: None) -> None:
        self._total, self.close = total, close
        self._last = total()

    def fresh(self) -> int:
        before, self._last = self._last, self._total()
        return max(0, self._last - before)


def last_packets(cluster: Cluster, name: str) -> Since:
    """The packets that still come to a node that has withdrawn its VIPs: to its virtual services, or to the VIPs of a
    backend. Raises LbnodeError where the kernel does not tell."""
    if cluster.nodes[name].role == "l4":
        wanted = services(cluster)
        return Since(lambda: taken(wanted))
    from lbnode.net.arrivals import Arrivals

    arrivals = Arrivals(vip for service in cluster.announced_by(name).values() for vip in service.vips)
    return Since(lambda: arrivals.count, arrivals.close)


def taken(wanted: Collection[ServiceKey]) -> int:
    """The packets of clients that IPVS has sent on for these services."""
    from lbnode.ipvs import counters

    return sum(counted.packets for key, counted in counters.read().items() if key in wanted)
