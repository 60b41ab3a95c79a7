"""The order of a service's destinations: which of them must move so that it becomes canonical, and how. PURE.

The kernel puts a new destination at the head of its list, so an order is mended by taking destinations out and adding
them again, oldest first. There are two ways. Under traffic, as few as possible move, each with its removal and its
return side by side, and the scheduler is left alone: switching it refuses new flows. Where nothing is announced and no
flow is left, all of them are added again, under no scheduler, and the table is built once.
"""

from collections.abc import Sequence

from lbnode.resources import DestinationOrder


def to_move(standing: Sequence[str], canonical: Sequence[str]) -> Sequence[str]:
    """The destinations that must be taken out and added again, in that order, so that `standing` (oldest first)
    becomes `canonical`: all but the longest run of the oldest that already stand in their order. What stands but is
    not canonical does not count; what is canonical must stand."""
    position = {name: index for index, name in enumerate(standing)}
    last = -1
    for index, name in enumerate(canonical):
        if position[name] < last:
            return canonical[index:]
        last = position[name]
    return ()


def repair(old: DestinationOrder, new: DestinationOrder, *, quiet: bool) -> str:
    """How `old` will be made `new`, for a plan: `repaired live, 2 of 8 rows out and in`. Whether a
    service that is not announced has flows left shows only when it is done. Rows that come are last."""
    if quiet:
        return "rebuilt before it is announced (live while it has flows)"
    known = set(old.names)
    coming = [name for name in new.names if name not in known]
    moving = to_move([*old.names, *coming], new.names)
    return f"repaired live, {len(moving)} of {len(new.names)} rows out and in"
