"""Who of a service's real servers gets new flows, and whether the service can be announced. PURE.

Health alone does not decide it. A check may be broken instead of what it checks: so a service can say with how small a
share of its servers up its checks are no longer believed (`panic_percent`), and that it would rather be announced with
doubtful servers than not at all (`below_quorum: keep`). Servers that people have taken out stay out in any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lbnode.config.model import Node, Probe, Service
from lbnode.roles.targets import Standing

Servers = Mapping[str, tuple[Node, Standing]]
"""Real servers by name, in canonical order."""

STEPS = 10
"""A slow start has at most so many."""


@dataclass(frozen=True)
class Serving:
    """`weights` by server, 0 for those that get nothing; `panic` says why the checks are not believed, if they are
    not."""

    weights: Mapping[str, int]
    panic: str = ""

    @property
    def count(self) -> int:
        return sum(weight > 0 for weight in self.weights.values())


def serving(service: Service, servers: Servers) -> Serving:
    """What each real server of a service in one family gets now."""
    wanted = {name: item for name, item in servers.items() if item[1].wanted}
    up = {name: item for name, item in wanted.items() if item[1].up}
    panic = _panic(service, len(up), len(wanted))
    used = wanted if panic else up
    settled = sum(not _starting(service, found) for _, found in used.values())
    slowly = settled >= service.quorum
    weights = dict.fromkeys(servers, 0)
    for name, (node, found) in used.items():
        full = found.share(node.weight)
        weights[name] = _step(service, found, full) if slowly else full
    return Serving(weights, panic)


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
    back = [found.back_for_s for _, found in servers.values() if found.wanted and found.up]
    known = [seconds for seconds in back if seconds is not None]
    return bool(known) and len(known) == len(back) and max(known) < settle_s(probe)


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
