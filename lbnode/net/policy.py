"""Policy rules, and the local routes in a table of our own: what the recipe of a failed real server needs.

    ip rule add pref 200 iif lo fwmark 0/0xffffffff lookup 77
    ip route add local 192.0.2.151/32 dev lo table 77 src 192.0.2.141

Ours is what carries our protocol number: rules anywhere, routes in the table. Routes of others in the table, and
rules of others that lead there, are reported, for they change what becomes of a failed server's flows, and left alone.

Sources: rtnetlink(7), include/uapi/linux/{rtnetlink,fib_rules}.h, net/core/fib_rules.c, net/ipv{4,6}/fib_*.c.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from typing import Literal, cast

from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError, NotPermitted, NotReady
from lbnode.net import rtnetlink
from lbnode.net.rtnetlink import Message, attribute, number
from lbnode.plan import Change
from lbnode.resources import LOCAL_TABLE, PROTOCOL, LocalRoute, Row, Rule

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 24, 25, 26, 32, 33, 34
RTA_DST, RTA_OIF, RTA_PREFSRC, RTA_TABLE = 1, 4, 7, 15
RTN_LOCAL, RT_SCOPE_UNIVERSE, RT_SCOPE_HOST = 2, 0, 254
FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 3, 6, 10, 15, 16, 21
FR_ACT_TO_TBL = 1
LOOPBACK_INDEX = 1  # of every network namespace (include/linux/netdevice.h, LOOPBACK_IFINDEX)

# struct rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags; struct fib_rule_hdr has
# the same form: table, two reserved bytes, action, flags.
BODY = struct.Struct("=BBBBBBBBI")
FAMILIES: dict[Literal[4, 6], int] = {4: socket.AF_INET, 6: socket.AF_INET6}
GONE = (errno.ENOENT, errno.ESRCH)
# A route that somebody else made to the same address is not replaced.
NEW_FLAGS = {
    "create": rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL,
    "update": rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE,
    "delete": 0,
}
VERBS = {"create": "add", "update": "change", "delete": "remove"}


class PolicyDriver:
    """Reads and writes Rule and LocalRoute rows of the network namespace of the calling thread.

    `renew` is told the addresses whose routes have changed: IPVS keeps a route with each destination, and for IPv6 a
    new route in another table does not make that one stale (net/ipv6/route.c, rt6_check). It may raise LbnodeError.
    """

    kinds: tuple[type[Row], ...] = (Rule, LocalRoute)

    def __init__(self, renew: Callable[[Collection[str]], None]) -> None:
        self._renew = renew

    def observe(self, wanted: Sequence[Row]) -> Observed:  # noqa: ARG002 - ours is known by its number
        """All rules and routes of ours. Raises LbnodeError."""
        rows: list[Row] = []
        foreign: list[str] = []
        try:
            for version in FAMILIES:
                for rule, protocol in _rules(version):
                    if protocol == PROTOCOL:
                        rows.append(rule)
                    elif rule.table == LOCAL_TABLE:
                        foreign.append(f"rule {rule.title}")
                for title, route in _routes(version):
                    if route is not None:
                        rows.append(route)
                    else:
                        foreign.append(f"route {title} in table {LOCAL_TABLE}")
        except OSError as error:
            raise NotReady(f"cannot read routing rules and routes: {error.strerror or error}") from error
        return Observed(tuple(rows), tuple(foreign))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """As one batch; then IPVS is told."""
        try:
            outcome = rtnetlink.exchange([_message(change) for change in changes])
        except OSError as error:
            outcome = [error.errno or errno.EIO] * len(changes)
        errors = [_error(change, code) for change, code in zip(changes, outcome, strict=True)]
        routed = [index for index, change in enumerate(changes) if isinstance(change.row, LocalRoute)]
        changed = {cast("LocalRoute", changes[index].row).address for index in routed if not errors[index]}
        try:
            if changed:
                self._renew(changed)
        except LbnodeError as error:
            for index in routed:
                errors[index] = errors[index] or str(error)
        return [Result(change, why) for change, why in zip(changes, errors, strict=True)]


def ended() -> frozenset[str]:
    """The addresses that have a local route of ours. Raises NotReady."""
    try:
        rows = [route for version in FAMILIES for _, route in _routes(version)]
    except OSError as error:
        raise NotReady(f"cannot read routes: {error.strerror or error}") from error
    return frozenset(row.address for row in rows if row is not None)


def _rules(version: Literal[4, 6]) -> list[tuple[Rule, int]]:
    """All rules of a family, each with its protocol number."""
    body = BODY.pack(FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
    found = []
    for payload in rtnetlink.dump(RTM_GETRULE, body, RTM_NEWRULE, "routing rules"):
        values = rtnetlink.attributes(payload, BODY.size)
        rule = Rule(
            version,
            _number(values, FRA_PRIORITY),
            _number(values, FRA_TABLE),
            values.get(FRA_IIFNAME, b"").rstrip(b"\0").decode("ascii", "replace"),
            _number(values, FRA_FWMARK),
            _number(values, FRA_FWMASK),
        )
        found.append((rule, int.from_bytes(values.get(FRA_PROTOCOL, b""), "big")))
    return found


def _routes(version: Literal[4, 6]) -> list[tuple[str, LocalRoute | None]]:
    """All routes of LOCAL_TABLE in a family: the prefix, and the row when it is one of ours."""
    body = BODY.pack(FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0) + number(RTA_TABLE, LOCAL_TABLE)
    try:
        payloads = rtnetlink.dump(RTM_GETROUTE, body, RTM_NEWROUTE, "routes")
    except OSError as error:
        if error.errno == errno.ENOENT:  # a table without a route may not be there (net/ipv4/fib_frontend.c)
            return []
        raise
    found: list[tuple[str, LocalRoute | None]] = []
    for payload in payloads:
        _, length, _, _, _, protocol, _, kind, _ = BODY.unpack_from(payload)
        values = rtnetlink.attributes(payload, BODY.size)
        address = str(ip_address(values.get(RTA_DST) or bytes(4 if version == 4 else 16)))
        whole = length == (32 if version == 4 else 128)
        source = values.get(RTA_PREFSRC)
        row = LocalRoute(address, str(ip_address(source)) if source else "")
        found.append((f"{address}/{length}", row if protocol == PROTOCOL and kind == RTN_LOCAL and whole else None))
    return found


def _number(values: dict[int, bytes], kind: int) -> int:
    return rtnetlink.NUMBER.unpack(values[kind])[0] if kind in values else 0


def _message(change: Change) -> Message:
    row, add = change.row, change.new is not None
    if isinstance(row, Rule):
        return Message(RTM_NEWRULE if add else RTM_DELRULE, rtnetlink.NLM_F_CREATE if add else 0, _rule(row))
    flags = NEW_FLAGS[change.action]
    return Message(RTM_NEWROUTE if add else RTM_DELROUTE, flags, _route(cast("LocalRoute", row), add))


def _rule(row: Rule) -> bytes:
    body = BODY.pack(FAMILIES[row.version], 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    body += (
        number(FRA_PRIORITY, row.priority) + number(FRA_TABLE, row.table) + attribute(FRA_PROTOCOL, bytes([PROTOCOL]))
    )
    if row.incoming:
        body += attribute(FRA_IIFNAME, row.incoming.encode() + b"\0")
    if row.mask:
        body += number(FRA_FWMARK, row.mark) + number(FRA_FWMASK, row.mask)
    return body


def _route(row: LocalRoute, add: bool) -> bytes:
    address = ip_address(row.address)
    scope = RT_SCOPE_HOST if address.version == 4 else RT_SCOPE_UNIVERSE
    table = number(RTA_TABLE, LOCAL_TABLE)
    family = FAMILIES[row.version]
    body = BODY.pack(family, address.max_prefixlen, 0, 0, 0, PROTOCOL, scope, RTN_LOCAL, 0)
    body += attribute(RTA_DST, address.packed) + table
    # A removal names no source: whichever it has, it goes.
    source = attribute(RTA_PREFSRC, ip_address(row.source).packed) if row.source else b""
    return body + number(RTA_OIF, LOOPBACK_INDEX) + source if add else body


def _error(change: Change, code: int) -> str:
    """What became of a change, in words; a removal of what has gone already is done."""
    if not code or (change.new is None and code in GONE):
        return ""
    row = change.row
    what = f"cannot {VERBS[change.action]} {row.KIND.replace('-', ' ')} {row.title}"
    if code == errno.EPERM:
        return str(NotPermitted(f"{what}: that needs root (CAP_NET_ADMIN)"))
    if code in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT) and isinstance(row, Rule):
        return f"{what}: this kernel has no policy rules for IPv{row.version}"
    if code == errno.EINVAL and isinstance(row, LocalRoute):
        return f"{what}: the kernel refuses it; is {row.source} an address of this node?"
    if code == errno.EEXIST:
        return f"{what}: somebody else's route to it stands in table {LOCAL_TABLE}"
    return f"{what}: {os.strerror(code)}"
