"""When a node announces a VIP as a second choice: on its way out, and when the VIP has come and gone too often. PURE.

Routers then send its packets to other nodes, as long as there are any; to this one they still may.
"""

from dataclasses import replace

from lbnode.config.leaving import Leaving
from lbnode.maintenance.state import Mode, moment
from lbnode.resources import Announcement
from lbnode.roles.inputs import Inputs, Verdict

GRACEFUL_SHUTDOWN = "65535:0"
"""RFC 8326, 4.1."""


def decided(inputs: Inputs, vip: str, good: bool, reason: str) -> Verdict:
    """The verdict on one VIP. `good` and `reason`: whether the service behind it can be announced, and why."""
    if inputs.admin.mode is not Mode.READY:
        stepping = good and vip in inputs.announced and _within_step(inputs)
        state = "announced as a second choice" if stepping else "withdrawn"
        return Verdict("vip", vip, stepping, state, f"this node is in {inputs.admin}")
    if good and vip in inputs.damped:
        end = moment(int(inputs.damped[vip]))
        why = f"it has come and gone too often: others are preferred until {end}; {reason}"
        return Verdict("vip", vip, True, "announced as a second choice", why)
    return Verdict("vip", vip, good, "announced" if good else "withdrawn", reason)


def is_second_choice(inputs: Inputs, vip: str) -> bool:
    """Whether what is announced of this VIP is a second choice."""
    return inputs.admin.mode is not Mode.READY or vip in inputs.damped


def second_choice(row: Announcement, rule: Leaving, inside: bool) -> Announcement:
    """The same, such that routers prefer another node's. `inside`: the peer is of the own AS; only there a local
    preference is told (RFC 4271, 5.1.5). Where the rule says nothing that can be told, it is the MED, which every
    router understands: a VIP that is damped is one although nodes leave without a step."""
    if rule.step == "graceful-shutdown":
        return replace(row, communities=tuple(dict.fromkeys((*row.communities, GRACEFUL_SHUTDOWN))))
    if rule.step == "local-preference" and inside:
        return replace(row, local_preference=rule.local_preference)
    return replace(row, med=rule.med)


def _within_step(inputs: Inputs) -> bool:
    return inputs.leaving_s is not None and inputs.leaving_s < inputs.cluster.bgp.leaving.step_s
