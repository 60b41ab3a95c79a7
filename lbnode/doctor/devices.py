"""Devices of ours and the VIPs on them: what is missing, different or in the wrong place. PURE.

The plan finds the differences; here they are told as what clients notice.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from lbnode.doctor.finding import Finding
from lbnode.plan import Change, diff
from lbnode.resources import Address, Link, Row

_SHOWN = 5
_DROPPED = "packets that the L4 nodes send through the tunnel are dropped"
LOST = {
    "dummy": "the VIPs that should stand on it are nobody's",
    "ipip": f"IPv4 {_DROPPED}",
    "ip6tnl": f"IPv6 {_DROPPED}",
    "gre": f"IPv4 {_DROPPED}",
    "ip6gre": f"IPv6 {_DROPPED}",
    "vrf": "FRR sees no route of its table, so it announces no VIP",
}
_UNHEARD = "where the way to a real server is narrow, IPv6 uploads stall: 'packet too big' is not heard"
LOST_BY_L4 = {**LOST, "ip6tnl": _UNHEARD, "ip6gre": _UNHEARD}
"""What it means to clients that a device is not right, by type."""


def check(
    actual: Sequence[Row],
    wanted: Sequence[Row],
    foreign: Sequence[str],
    apply: str,
    lost: Mapping[str, str] = LOST,
) -> tuple[Finding, ...]:
    """Findings on the rows Link and Address; those of an address whose device is missing or wrong are left out.

    `foreign` is what the driver reports beside them; `apply` the command that makes the node right.
    """
    changes = diff(actual, wanted).changes
    links = [change for change in changes if isinstance(change.row, Link)]
    broken = {change.row.title for change in links}
    found = [_link(change, apply, lost) for change in links]
    good = [row.name for row in wanted if isinstance(row, Link) and row.name not in broken]
    if good:
        found.insert(0, Finding("devices", "ok", ", ".join(good)))
    found += _vips([change for change in changes if _stands(change.row, broken)], wanted, broken, apply)
    found += [
        Finding("left alone", "warn", line, "move it away when it is a mistake; lbnode does not touch what is not its")
        for line in foreign
    ]
    return tuple(found)


def _stands(row: Row, broken: set[str]) -> bool:
    return isinstance(row, Address) and row.device not in broken


def _link(change: Change, apply: str, lost: Mapping[str, str]) -> Finding:
    link = cast("Link", change.row)
    name = f"{'device' if link.type in ('dummy', 'vrf') else 'tunnel'} {link.name}"
    if change.new is None:
        return Finding(name, "warn", "not wanted any more", apply)
    words = " ".join(f"{key} {value}" for key, value in change.differences().items())
    seen = "missing" if change.old is None else words
    return Finding(name, "fail", f"{seen}: {lost[link.type]}", apply)


def _vips(changes: Sequence[Change], wanted: Sequence[Row], broken: set[str], apply: str) -> list[Finding]:
    missing = [change.row.title for change in changes if change.new is not None]
    strangers = [change.row.title for change in changes if change.new is None]
    total = sum(_stands(row, broken) for row in wanted)
    found = []
    if total and not missing:
        found.append(Finding("vips", "ok", f"{total} in place"))
    if missing:
        seen = f"{len(missing)} of {total} missing: {_some(missing)}: packets to them are not taken"
        found.append(Finding("vips", "fail", seen, apply))
    if strangers:
        found.append(Finding("vips besides", "warn", f"not wanted any more: {_some(strangers)}", apply))
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
