"""What happens to a network while nobody says what is done to it: seen from outside, once a second or so.

Routers' next hops, weights in the L4 nodes' IPVS tables, and real servers that are dead or out of reach, which decides
whether a broken flow could have been kept.
"""

import errno
import select
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lbnode.lab.account import Flow, Outage, Phase, Sample
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.network import PORT, Network
from lbnode.lab.served import TCP, UDP, echo_ports

REACH_S = 0.5
NOBODY_LISTENS = 9
"""A port that is refused by whoever is there: `discard`, which nobody has served for decades."""
LISTENING, BOUND = "0A", "07"  # include/net/tcp_states.h; a UDP socket without a peer is as if closed
CALM = "nothing yet"
SAMPLES_MOST = 100

Part = tuple[str, str]
"""A machine, and a protocol that it serves."""


@dataclass
class Watch:
    """Looks at a network again and again, and keeps what an account needs."""

    network: Network
    samples: list[Sample] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    _state: dict[str, str] = field(default_factory=dict)
    _missed: dict[Part, float] = field(default_factory=dict)
    _lost: set[Part] = field(default_factory=set)
    _sockets: dict[Part, frozenset[str]] = field(default_factory=dict)
    _looked: float = 0.0
    _flows: set[Flow] = field(default_factory=set)

    def __post_init__(self) -> None:
        network = self.network
        self._echo_ports = echo_ports(network.lab.topology.cluster)
        self._servers = (*network.l7, *network.backends)
        by_udp = [(name, UDP) for name in self._servers if name in self._echo_ports]
        self._parts: list[Part] = [*((name, TCP) for name in self._servers), *by_udp]

    def begin(self, flows: Sequence[Flow]) -> None:
        """Before anything happens; `flows` are those to follow."""
        self._flows = set(flows)
        self._looked = time.monotonic()
        self._state = self._look()
        self.phases.append(Phase(CALM, self._looked))
        self.sample()

    def look(self) -> list[str]:
        """What has changed since the last look, in words. All of it is one phase of the account, which began when all
        was still as before."""
        began = time.monotonic()
        seen = self._look()
        changed = [text for name, text in seen.items() if text != self._state.get(name)]
        self._state = seen
        if changed:
            self.phases.append(Phase("; ".join(changed), self._looked))
            self.sample()
        self._looked = began
        return changed

    def sample(self) -> None:
        """The L4 nodes' connection tables now. The first one counts most; of many, the later half is thinned out."""
        network = self.network
        tables = {
            name: {
                flow: network.name_of(real)
                for flow, real in sight.connections(network.node(name)).items()
                if flow in self._flows
            }
            for name in network.l4
        }
        self.samples.append(Sample(time.monotonic(), tables))
        if len(self.samples) > SAMPLES_MOST:
            del self.samples[1::2]

    def _look(self) -> dict[str, str]:
        """What is worth a word -> the words for how it is."""
        network = self.network
        carried = [name for name in network.l4 if network.routed(name)]
        seen = {"routes": f"routers use {', '.join(carried) or 'no L4 node'}"}
        weights: dict[str, set[int]] = {}
        for services in network.all_weights().values():
            for rows in services.values():
                for address, weight in rows.items():
                    weights.setdefault(network.name_of(address), set()).add(weight)
        for name in self._servers:
            told = "/".join(map(str, sorted(weights.get(name, ())))) or "none"
            seen[f"weight {name}"] = f"weight of {name}: {told}"
        self._find_lost()
        for part in self._parts:
            words = part[0] if part[1] == TCP else f"{part[0]} by UDP"
            seen[words] = f"{words} is {'dead or out of reach' if part in self._lost else 'there'}"
        return seen

    def _find_lost(self) -> None:
        """What a machine serves a protocol with is lost when it is missed twice in a row, since the first time: once
        may be a busy processor. Where its sockets are all others now it has been started anew, and what the old ones
        had taken is lost."""
        began = time.monotonic()
        there = self._in_reach(self._servers)
        for part in self._parts:
            name, protocol = part
            sockets = self._open_sockets(part)
            before = self._sockets.get(part, sockets)
            if name in there and sockets:
                self._missed.pop(part, None)
                self._lost.discard(part)
                self._sockets[part] = sockets
                if not sockets & before:
                    self.outages.append(Outage(name, self._looked, protocol))
            elif self._missed.setdefault(part, began) < began and part not in self._lost:
                self._lost.add(part)
                self.outages.append(Outage(name, self._missed[part], protocol))

    def _open_sockets(self, part: Part) -> frozenset[str]:
        name, protocol = part
        ports = {PORT} if protocol == TCP else set(self._echo_ports[name])
        state = LISTENING if protocol == TCP else BOUND
        return _sockets(self.network.node(name).holder, protocol, state, ports)

    def _in_reach(self, names: Sequence[str]) -> set[str]:
        """Those whose kernel answers a router, with whatever it says."""
        network = self.network
        router = network.node(next(iter(network.routes)))
        tried = router.call(lambda: {_attempt(network.any_address(name)): name for name in names})
        found = set()
        waiting = dict(tried)
        end = time.monotonic() + REACH_S
        while waiting and (left := end - time.monotonic()) > 0:
            _, ready, _ = select.select([], list(waiting), [], left)
            for channel in ready:
                name = waiting.pop(channel)
                if channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                    found.add(name)
        for channel in tried:
            channel.close()
        return found


def _attempt(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    channel.setblocking(False)
    with suppress(OSError):
        channel.connect_ex((address, NOBODY_LISTENS))
    return channel


def _sockets(holder: int, protocol: str, state: str, ports: Collection[int]) -> frozenset[str]:
    """The sockets in a node, by inode, that are in a state on one of some ports."""
    found = set()
    for table in (protocol, f"{protocol}6"):
        for line in Path(f"/proc/{holder}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == state and int(words[1].rpartition(":")[2], 16) in ports:
                found.add(words[9])
    return frozenset(found)
