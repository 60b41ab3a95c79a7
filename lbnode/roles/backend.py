"""The backend: nothing to change for services behind HAProxy; for services that go `through: backend`, decapsulation
and the VIPs, so that it answers clients directly. PURE."""

from lbnode.config.model import IPAddress
from lbnode.maintenance.state import Mode
from lbnode.resources import MssClamp
from lbnode.roles import direct_return, second_chance
from lbnode.roles.inputs import Desired, Inputs, Verdict
from lbnode.roles.mss import mss_of_vip


def desired(inputs: Inputs) -> Desired:
    """Everything a backend should have."""
    cluster = inputs.cluster
    direct = [
        service
        for service in cluster.services.values()
        if service.through == "backend" and inputs.name in cluster.members(service.pool)
    ]
    ready = inputs.admin.mode is Mode.READY
    state = "in service" if ready else "out of service"
    verdict = Verdict("node", inputs.name, ready, state, f"{inputs.admin}; answers {len(direct)} services directly")
    rows = direct_return.rows(inputs.node, direct)
    clamps = _clamps(inputs, {vip for service in direct for vip in service.vips})
    here = Desired((*rows, *clamps), {row.key: "a tunnel's overhead" for row in clamps}, (verdict,))
    return Desired.merge([here, second_chance.desired(inputs, direct)])


def _clamps(inputs: Inputs, vips: set[IPAddress]) -> tuple[MssClamp, ...]:
    """What clients are told to fit their segments to; HAProxy does so by itself. Without nf_tables they are told the
    whole MTU, and their packets are cut up in the tunnel."""
    told = [(vip, mss_of_vip(inputs.cluster, vip, "backend")) for vip in sorted(vips, key=str)]
    return tuple(MssClamp(str(vip), mss) for vip, mss in told if mss is not None) if inputs.filters else ()
