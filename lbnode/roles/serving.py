"""Who of a service's real servers gets new flows, and whether the service can be announced. PURE.

Health alone does not decide it. A check may be broken instead of what it checks: so a service can say with how small a
share of its servers up its checks are no longer believed (`panic_percent`), and that it would rather be announced with
doubtful servers than not at all (`below_quorum: keep`). Servers that people have taken out stay out in any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from lbnode.config.model import Probe, Service
from lbnode.resources import SH_SLOTS
from lbnode.roles.targets import Standing


class Server(NamedTuple):
    """A real server in one family: what is known of it, its address, and its share, a weight that is its due."""

    known: Standing
    address: str
    share: int


Servers = Mapping[str, Server]
"""Real servers by name, in canonical order."""

SH_ROUNDS = 4
STEPS = 10
"""A slow start has at most so many."""


@dataclass(frozen=True)
class Serving:
    """`weights` by server, 0 for those that get nothing; `places`: the weights that all of them hold their places in
    the service's table with; `panic` says why the checks are not believed, if they are not."""

    weights: Mapping[str, int]
    places: Mapping[str, int]
    panic: str = ""

    @property
    def count(self) -> int:
        return sum(weight > 0 for weight in self.weights.values())


def serving(service: Service, servers: Servers) -> Serving:
    """What each real server of a service in one family gets now."""
    wanted = {name: server for name, server in servers.items() if server.known.wanted}
    up = {name: server for name, server in wanted.items() if server.known.up}
    panic = _panic(service, len(up), len(wanted))
    used = wanted if panic else up
    settled = sum(not _starting(service, server.known) for server in used.values())
    slowly = settled >= service.quorum
    places = {name: server.share for name, server in servers.items()}
    if service.ipvs.scheduler == "sh":
        places = in_turns(places)
    weights = dict.fromkeys(servers, 0)
    for name, server in used.items():
        weights[name] = _step(service, server.known, places[name]) if slowly else places[name]
    return Serving(weights, places, panic)


def in_turns(weights: Mapping[str, int]) -> dict[str, int]:
    """The same proportions in numbers so small that the table of sh has several rounds: it gives each server as many
    slots in a row as its weight, until all 256 are taken, so with weights of 100 a fourth server would get none
    (net/netfilter/ipvs/ip_vs_sh.c, ip_vs_sh_reassign)."""
    divisor = max(gcd(*weights.values()), sum(weights.values()) * SH_ROUNDS / SH_SLOTS) or 1
    return {name: max(1, round(weight / divisor)) for name, weight in weights.items()}


def enough(service: Service, found: Serving, announced: bool) -> bool:
    """Whether the service can be announced; `announced`: it is now, and then its lower mark counts."""
    if service.below_quorum == "keep":
        return found.count > 0
    return found.count >= mark(service, announced)


def settle_s(probe: Probe) -> float:
    """Seconds in which every real server that lives is found up, once the first is."""
    return probe.rise * probe.interval_s * (1 + probe.jitter) + probe.timeout_s


def settling(servers: Servers, probe: Probe) -> bool:
    """Whether all that are up came back a moment ago, so that more of them may be about to. A node that was cut off
    would otherwise announce with the first of them, and send the flows of the others elsewhere."""
    longest = settle_s(probe)
    up = [server.known.back_for_s for server in servers.values() if server.known.wanted and server.known.up]
    return bool(up) and all(seconds is not None and seconds < longest for seconds in up)


def mark(service: Service, announced: bool) -> int:
    """How many servers it needs."""
    return service.quorum if announced else max(service.quorum, service.quorum_high or 0)


def _panic(service: Service, up: int, wanted: int) -> str:
    if 100 * up < service.panic_percent * wanted:
        return f"{up} of {wanted} servers up is under {service.panic_percent} %: checks are not believed"
    if service.below_quorum == "keep" and up < min(service.quorum, wanted):
        return f"{up} of {wanted} servers up is under the quorum of {service.quorum}: all are used"
    return ""


def _starting(service: Service, found: Standing) -> bool:
    return found.back_for_s is not None and found.back_for_s < service.slow_start_s


def _step(service: Service, found: Standing, full: int) -> int:
    """The weight of one that may be in its slow start."""
    if not _starting(service, found) or found.back_for_s is None:
        return full
    step = 1 + int(found.back_for_s * STEPS / service.slow_start_s)
    return max(1, full * min(step, STEPS) // STEPS)
