"""What happens to a network while nobody says what is done to it: seen from outside, once a second or so.

Routers' next hops, weights in the L4 nodes' IPVS tables, and real servers that are dead or out of reach, which decides
whether a broken flow could have been kept.
"""

import errno
import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lbnode.lab.account import Flow, Outage, Phase, Sample
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.network import PORT, Network

REACH_S = 0.5
NOBODY_LISTENS = 9
"""A port that is refused by whoever is there: `discard`, which nobody has served for decades."""
LISTENING = "0A"  # include/net/tcp_states.h
CALM = "nothing yet"
SAMPLES_MOST = 100


@dataclass
class Watch:
    """Looks at a network again and again, and keeps what an account needs."""

    network: Network
    samples: list[Sample] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    _state: dict[str, str] = field(default_factory=dict)
    _missed: dict[str, float] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)
    _sockets: dict[str, frozenset[str]] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _looked: float = 0.0
    _flows: set[Flow] = field(default_factory=set)

    @property
    def _servers(self) -> tuple[str, ...]:
        return (*self.network.l7, *self.network.backends)

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
        seen |= {
            name: f"{name} is {'dead or out of reach' if name in self._lost else 'there'}" for name in self._servers
        }
        return seen

    def _find_lost(self) -> None:
        """A machine that is missed twice in a row is lost, since the first time: once may be a busy processor. One
        whose listening sockets are all others now has been started anew, and what the old ones had taken is lost."""
        began = time.monotonic()
        there = self._in_reach(self._servers)
        for name in self._servers:
            sockets = _listening(self.network.node(name).holder)
            before = self._sockets.get(name, sockets)
            if name in there and sockets:
                self._missed.pop(name, None)
                self._lost.discard(name)
                self._sockets[name] = sockets
                if not sockets & before:
                    self._starts[name] += 1
                    self.outages.append(Outage(name, self._looked))
            elif self._missed.setdefault(name, began) < began and name not in self._lost:
                self._lost.add(name)
                self.outages.append(Outage(name, self._missed[name]))

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


def _listening(holder: int) -> frozenset[str]:
    """The sockets in a node, by inode, that listen on the services' port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{holder}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == PORT:
                found.add(words[9])
    return frozenset(found)
