"""The backend: nothing to change for services behind HAProxy; for services that go `through: backend`, decapsulation
and the VIPs, so that it answers clients directly. Those with `announce: backend` it also checks and announces. PURE.

An announced VIP stands on the node whether its check is good or not: what is checked is the service at the VIP.
"""

from lbnode.config.model import IPAddress
from lbnode.maintenance.state import Mode
from lbnode.resources import MssClamp
from lbnode.roles import announcing, direct_return, leaving, second_chance, senders
from lbnode.roles.inputs import Desired, Inputs, Verdict
from lbnode.roles.mss import mss_of_vip
from lbnode.roles.own_check import OwnCheck, own_checks


def desired(inputs: Inputs) -> Desired:
    """Everything a backend should have."""
    cluster = inputs.cluster
    direct = [
        service
        for service in cluster.balanced.values()
        if service.through == "backend" and inputs.name in cluster.members(service.pool)
    ]
    announced = cluster.announced_by(inputs.name)
    ready = _in_service(inputs)
    state = "in service" if ready else "out of service"
    words = f"{inputs.admin}; answers {len(direct)} services directly"
    words += f", announces {len(announced)}" if announced else ""
    clamps = _clamps(inputs, {vip for service in direct for vip in service.vips})
    relays = second_chance.relays(inputs, direct)
    guards = senders.rows(cluster, inputs.node, direct, relays) if inputs.filters else ()
    words += senders.unguarded(cluster, inputs.node, direct) if not inputs.filters else ""
    rows = (*direct_return.rows(inputs.node, direct), *clamps, *guards)
    reasons = {row.key: "a tunnel's overhead" for row in clamps}
    own = Desired(rows, reasons, (Verdict("node", inputs.name, ready, state, words),))
    return Desired.merge([own, second_chance.desired(inputs, direct), groundwork(inputs), *_announced(inputs)])


def groundwork(inputs: Inputs) -> Desired:
    """The VIPs that the node announces itself, without which it could not check what answers there."""
    services = inputs.cluster.announced_by(inputs.name).values()
    return Desired(direct_return.standing(vip for service in services for vip in service.vips))


def _announced(inputs: Inputs) -> list[Desired]:
    checks: dict[IPAddress, list[OwnCheck]] = {}
    for check in own_checks(inputs.cluster, inputs.name):
        checks.setdefault(check.vip, []).append(check)
    if not checks:
        return []
    verdicts = {vip: _should_announce(inputs, vip, own) for vip, own in checks.items()}
    return [announcing.speaker(inputs), announcing.announcements(inputs, verdicts)]


def _should_announce(inputs: Inputs, vip: IPAddress, checks: list[OwnCheck]) -> Verdict:
    """A VIP is announced while the node is in service and all services of the VIP answer there: routers do not look at
    ports. What is not known yet changes nothing: an agent that has just started neither announces nor withdraws by
    guess."""
    announced = str(vip) in inputs.announced
    good, words = True, []
    for check in checks:
        health = inputs.health.get(check.probe)
        up = health.up if health else None
        good = good and (announced if up is None else up)
        words.append(f"{check.name} is {'up' if up else 'not known' if up is None else 'down'}")
        words[-1] += f": {health.reason}" if health and health.reason else ""
    return leaving.decided(inputs, str(vip), good, "; ".join(words))


def _in_service(inputs: Inputs) -> bool:
    return inputs.admin.mode is Mode.READY


def _clamps(inputs: Inputs, vips: set[IPAddress]) -> tuple[MssClamp, ...]:
    """What clients are told to fit their segments to; HAProxy does so by itself. Without nf_tables they are told the
    whole MTU, and their packets are cut up in the tunnel."""
    told = [(vip, mss_of_vip(inputs.cluster, vip, "backend")) for vip in sorted(vips, key=str)]
    return tuple(MssClamp(str(vip), mss) for vip, mss in told if mss is not None) if inputs.filters else ()
