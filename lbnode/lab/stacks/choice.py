"""The stacks there are, by name; each is imported only when it is asked for."""

from lbnode.lab.errors import LabError
from lbnode.lab.imported import imported
from lbnode.lab.stacks import Stack

STACKS = {
    "lbnode": "lbnode.lab.stacks.own:Own",
    "lbnode-without-second-chance": "lbnode.lab.stacks.own:own_without",
    "keepalived": "lbnode.lab.stacks.keepalived:Keepalived",
}


def stack_of(name: str) -> Stack:
    """A fresh stack. Raises LabError when there is none of this name."""
    where = STACKS.get(name)
    if where is None:
        raise LabError(f"cannot find stack {name!r}: there are {', '.join(STACKS)}")
    made: Stack = imported(where)()
    return made
