"""What a node of each role should look like: pure functions of the cluster file, the admin state and the health."""

from lbnode.config.model import Role
from lbnode.roles.inputs import Desired, Inputs


def desired(role: Role, inputs: Inputs) -> Desired:
    """The desired state of a node. A role is imported only where it is used."""
    if role == "l4":
        from lbnode.roles import l4

        return l4.desired(inputs)
    if role == "l7":
        from lbnode.roles import l7

        return l7.desired(inputs)
    from lbnode.roles import backend

    return backend.desired(inputs)
