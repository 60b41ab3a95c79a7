"""The backend: nothing to change for services behind HAProxy; for services that go `through: backend`, decapsulation
and the VIPs, so that it answers clients directly. PURE."""

from lbnode.maintenance.state import Mode
from lbnode.roles import direct_return
from lbnode.roles.inputs import Desired, Inputs, Verdict


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
    return Desired(rows, {}, (verdict,))
