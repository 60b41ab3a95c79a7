"""The driver of announced routes: what BIRD or FRR is to announce stands in a routing table of our own.

    ip route add blackhole 198.51.100.1/32 table 78 proto 76 metric 100

No rule leads to the table, so a route there moves no packet: it is a message to the BGP speaker, which follows the
table by netlink, also while lbnode does not run. Ours is what carries our protocol number in any table but that of
local routes; what others put into ours is reported, for the speaker might announce it, and left alone.

Sources: rtnetlink(7), include/uapi/linux/rtnetlink.h, net/ipv4/fib_{frontend,trie}.c, net/ipv6/route.c.
"""

import errno
import os
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from itertools import groupby
from typing import Literal, NamedTuple, cast

from lbnode.drivers import Observed, Result
from lbnode.errors import NotPermitted, NotReady
from lbnode.net import rtnetlink
from lbnode.net.policy import (
    BODY,
    FAMILIES,
    GONE,
    RTA_DST,
    RTA_TABLE,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
)
from lbnode.net.rtnetlink import Message, attribute, number
from lbnode.plan import Change
from lbnode.resources import LOCAL_TABLE, PROTOCOL, AnnouncedRoute, Row

RTA_PRIORITY = 6
RTN_UNSPEC, RTN_BLACKHOLE, RT_SCOPE_UNIVERSE, RT_SCOPE_NOWHERE = 0, 6, 0, 255
VERBS = {"create": "announce", "update": "announce", "delete": "withdraw"}


class _Route(NamedTuple):
    """A route as the kernel holds it."""

    prefix: str
    table: int
    metric: int
    protocol: int
    is_blackhole: bool


class TableDriver:
    """Reads and writes AnnouncedRoute rows of the network namespace of the calling thread."""

    kinds: tuple[type[Row], ...] = (AnnouncedRoute,)

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """All routes of ours, whatever table they stand in. Raises LbnodeError."""
        tables = {row.table for row in wanted if isinstance(row, AnnouncedRoute)}
        try:
            rows = _rows(_ours())
            others = [route for table in sorted(tables) for route in _dump(table=table) if route.protocol != PROTOCOL]
        except OSError as error:
            raise NotReady(f"cannot read announced routes: {error.strerror or error}") from error
        return Observed(tuple(rows), tuple(f"route {route.prefix} in table {route.table}" for route in others))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """As one batch. A route gets another metric by a new one that comes before the old one goes: the speaker then
        never withdraws the prefix in between."""
        messages = [_messages(change) for change in changes]
        try:
            outcome = rtnetlink.exchange([message for group in messages for message in group])
        except OSError as error:
            return [Result(change, _error(change, error.errno or errno.EIO)) for change in changes]
        codes = iter(outcome)
        return [
            Result(change, _error(change, _first([_settled(message, next(codes)) for message in group])))
            for change, group in zip(changes, messages, strict=True)
        ]


def announced() -> frozenset[str]:
    """The addresses that have a route of ours. Raises NotReady."""
    try:
        return frozenset(route.prefix.partition("/")[0] for route in _ours())
    except OSError as error:
        raise NotReady(f"cannot read announced routes: {error.strerror or error}") from error


def _ours() -> list[_Route]:
    return [route for route in _dump(protocol=PROTOCOL) if route.table != LOCAL_TABLE]


def _rows(routes: Sequence[_Route]) -> list[AnnouncedRoute]:
    """One row for each prefix: its best blackhole, and all that stands beside it."""
    rows = []
    for (table, prefix), group in groupby(sorted(routes, key=_place), key=lambda route: (route.table, route.prefix)):
        members = list(group)
        best = next((route for route in members if route.is_blackhole), None)
        stale = tuple(route.metric for route in members if route is not best)
        rows.append(AnnouncedRoute(prefix, table, best.metric if best else None, stale))
    return rows


def _place(route: _Route) -> tuple[int, str, int]:
    return (route.table, route.prefix, route.metric)


def _dump(table: int = 0, protocol: int = 0) -> list[_Route]:
    """The routes of both families in one table, or of one protocol in all of them. Raises OSError, NotReady."""
    found: list[_Route] = []
    for family in FAMILIES.values():
        # The kernel filters: a table of the whole Internet's routes is walked through, not sent.
        body = BODY.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0) + (number(RTA_TABLE, table) if table else b"")
        try:
            payloads = rtnetlink.dump(RTM_GETROUTE, body, RTM_NEWROUTE, "routes")
        except OSError as error:
            if error.errno != errno.ENOENT:  # a table without a route may not be there (net/ipv4/fib_frontend.c)
                raise
            payloads = []
        found += map(_route, payloads)
    return found


def _route(payload: memoryview) -> _Route:
    family, length, _, _, table, protocol, _, kind, _ = BODY.unpack_from(payload)
    values = rtnetlink.attributes(payload, BODY.size)
    address = ip_address(values.get(RTA_DST) or bytes(4 if family == FAMILIES[4] else 16))
    return _Route(
        f"{address}/{length}",
        _number(values, RTA_TABLE) or table,
        _number(values, RTA_PRIORITY),
        protocol,
        kind == RTN_BLACKHOLE,
    )


def _number(values: dict[int, bytes], kind: int) -> int:
    return int(rtnetlink.NUMBER.unpack(values[kind])[0]) if kind in values else 0


def _messages(change: Change) -> list[Message]:
    """What must go before the new route (it stands in its place), the new one, then what else goes."""
    old, new = cast("AnnouncedRoute | None", change.old), cast("AnnouncedRoute | None", change.new)
    row = cast("AnnouncedRoute", change.row)
    best = old.metric if old else None
    stale = old.stale if old else ()
    standing = [metric for metric in (best, *stale) if metric is not None]
    if new is None or new.metric is None:
        return [_delete(row, metric) for metric in standing]
    return [
        *(_delete(row, metric) for metric in stale if metric == new.metric),
        *([] if best == new.metric else [_add(row, new.metric)]),
        *(_delete(row, metric) for metric in standing if metric != new.metric),
    ]


def _add(row: AnnouncedRoute, metric: int) -> Message:
    # A route that somebody else made with the same metric is not replaced.
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    return Message(RTM_NEWROUTE, flags, _body(row, metric, RT_SCOPE_UNIVERSE, RTN_BLACKHOLE))


def _delete(row: AnnouncedRoute, metric: int) -> Message:
    """Of whatever type, but with our protocol number."""
    return Message(RTM_DELROUTE, 0, _body(row, metric, RT_SCOPE_NOWHERE, RTN_UNSPEC))


def _body(row: AnnouncedRoute, metric: int, scope: int, kind: int) -> bytes:
    network = ip_network(row.prefix)
    version: Literal[4, 6] = 4 if network.version == 4 else 6
    body = BODY.pack(FAMILIES[version], network.prefixlen, 0, 0, 0, PROTOCOL, scope, kind, 0)
    body += attribute(RTA_DST, network.network_address.packed) + number(RTA_TABLE, row.table)
    return body + number(RTA_PRIORITY, metric)


def _settled(message: Message, code: int) -> int:
    """A removal of what has gone already is done."""
    return 0 if message.kind == RTM_DELROUTE and code in GONE else code


def _first(codes: Sequence[int]) -> int:
    return next((code for code in codes if code), 0)


def _error(change: Change, code: int) -> str:
    if not code:
        return ""
    row = cast("AnnouncedRoute", change.row)
    what = f"cannot {VERBS[change.action]} {row.prefix}"
    if code == errno.EPERM:
        return str(NotPermitted(f"{what}: that needs root (CAP_NET_ADMIN)"))
    if code == errno.EEXIST:
        return f"{what}: somebody else's route to it stands in table {row.table}"
    return f"{what}: {os.strerror(code)}"
