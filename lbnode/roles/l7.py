"""The L7 node: decapsulation with the VIPs, and HAProxy with the configuration of the cluster file. PURE.

`ServerState` of the enabler is what people have set the node to: it makes the health URI fail at once, where HAProxy's
own agent check would take up to its interval.
"""

from lbnode.haproxy import rows as proxy
from lbnode.maintenance.state import AdminState, Mode
from lbnode.resources import Row, ServerState, Sysctl
from lbnode.roles import direct_return, second_chance, senders
from lbnode.roles.inputs import Desired, Inputs, Verdict

# HAProxy binds the VIPs by address; it must be able to start or reload before they stand on their device.
SYSCTLS = {"net.ipv4.ip_nonlocal_bind": "1", "net.ipv6.ip_nonlocal_bind": "1"}


def enabler_of(admin: AdminState) -> ServerState:
    """What people have set the node to, as HAProxy's health URI has it."""
    return ServerState("enabler", "enabler", up=admin.mode is Mode.READY and admin.percent > 0)


def desired(inputs: Inputs) -> Desired:
    """Everything an L7 node should have."""
    services = [service for service in inputs.cluster.services.values() if service.through == "l7"]
    held = proxy.rows(
        inputs.templates,
        inputs.cluster,
        inputs.name,
        inputs.paths,
        inputs.haproxy_version,
        inputs.proxy.certificates,
    )
    enabler = enabler_of(inputs.admin)
    serving = enabler.up
    relays = second_chance.relays(inputs, services)
    rows: tuple[Row, ...] = (
        *(Sysctl(name, value) for name, value in SYSCTLS.items()),
        *direct_return.rows(inputs.node, services),
        *(senders.rows(inputs.cluster, inputs.node, services, relays) if inputs.filters else ()),
        *held,
        enabler,
    )
    state = "in service" if serving else "out of service"
    words = f"{inputs.admin}; takes {len(services)} services"
    words += "" if inputs.filters else senders.unguarded(inputs.cluster, inputs.node, services)
    verdict = Verdict("node", inputs.name, serving, state, words)
    reasons = {enabler.key: str(inputs.admin), **proxy.reasons(held, inputs.proxy.loaded)}
    here = Desired(rows, reasons, (verdict,))
    return Desired.merge([here, second_chance.desired(inputs, services)])
