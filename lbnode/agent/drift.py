"""What a pass has mended that nobody had asked for: somebody else had altered what is lbnode's. PURE."""

from lbnode.plan import Plan
from lbnode.reconcile import Pass
from lbnode.roles.inputs import Desired


def mended(before: Desired, wanted: Desired, left: Plan, done: Pass) -> int:
    """How many of a pass's changes were drift: the same was wanted `before`, and it was there (not in what was `left`).
    A destination that goes when its flows have ended is none."""
    if not done.results or before.rows != wanted.rows or left.waiting != done.left.waiting:
        return 0
    unfinished = {change.row.key for change in left.changes}
    return sum(not result.error and result.change.row.key not in unfinished for result in done.results)
