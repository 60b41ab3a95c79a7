"""Devices of ours and the addresses on them, as rows.

Ours is every virtual device whose name begins with LINK_PREFIX, and every host address of global scope on it, whoever
put it there: what the desired rows do not name is removed. Everything else is left alone; an address that looks like a
mistake (a wanted VIP on someone else's device, a wide prefix on one of ours) is reported.

A device that differs is changed in place when the kernel can; otherwise it is made anew, and the addresses that stood
on it are put back in the same step. Its own sysctls then start from the namespace's defaults, which the next pass sees.
A device that was down has lost its IPv6 addresses (addrconf_ifdown() in net/ipv6/addrconf.c): they are missing rows and
return in the same pass.
"""

import errno
import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError, Missing, NotPermitted, NotReady
from lbnode.net import addresses, devices
from lbnode.net.addresses import Assigned, Step
from lbnode.net.devices import Device
from lbnode.plan import Change
from lbnode.resources import LINK_PREFIX, Address, Link, Row

VERBS = {"create": "make", "update": "change", "delete": "remove"}
MODULES = {"ip6tnl": "ip6_tunnel", "gre": "ip_gre", "ip6gre": "ip6_gre"}


class LinkDriver:
    """Reads and writes Link and Address rows of the network namespace of the calling thread."""

    kinds: tuple[type[Row], ...] = (Link, Address)

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """All devices of ours, with their real type, and all addresses on them. Raises LbnodeError."""
        try:
            present = devices.dump()
            assigned = addresses.dump()
        except OSError as error:
            raise NotReady(f"cannot read devices and addresses: {error.strerror or error}") from error
        ours = {device.index: device for device in present if _is_ours(device)}
        links = [_link(device) for device in ours.values()]
        vips = [Address(one.address, ours[one.index].name) for one in assigned if one.index in ours and one.is_host]
        return Observed((*links, *vips), tuple(_foreign(present, assigned, wanted)))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """In order; neighbouring address changes go to the kernel as one batch."""
        results: list[Result] = []
        for kind, group in groupby(changes, key=lambda change: type(change.row)):
            batch = list(group)
            results += _apply_addresses(batch) if kind is Address else [_apply_link(change) for change in batch]
        return results


def _is_ours(device: Device) -> bool:
    return bool(device.kind) and device.name.startswith(LINK_PREFIX)


def _link(device: Device) -> Link:
    # A type that no desired row has is shown as it is, so that the diff repairs it.
    return Link(device.name, cast("Any", device.kind), device.local, device.up, device.checksum, device.table)


def _foreign(present: Sequence[Device], assigned: Sequence[Assigned], wanted: Sequence[Row]) -> list[str]:
    """What may hurt: devices of our name that are not virtual, addresses of the wrong shape or in the wrong place."""
    vips = {row.address for row in wanted if isinstance(row, Address)}
    ours = {device.index for device in present if _is_ours(device)}
    names = {device.index: device.name for device in present}
    lines = [
        f"device {device.name} (not virtual)"
        for device in present
        if device.name.startswith(LINK_PREFIX) and device.index not in ours
    ]
    for one in assigned:
        misshapen = one.index in ours and one.scope == 0 and not one.is_host
        if misshapen or (one.index not in ours and one.address in vips):
            lines.append(f"address {one.address}/{one.prefix_length} on {names.get(one.index, one.index)}")
    return lines


def _apply_addresses(changes: Sequence[Change]) -> list[Result]:
    rows = [cast("Address", change.row) for change in changes]
    try:
        index = {device.name: device.index for device in devices.dump()}
        steps = [
            Step(index.get(row.device, 0), row.address, add=change.action != "delete")
            for row, change in zip(rows, changes, strict=True)
        ]
        outcome = addresses.program(steps)
    except OSError as error:
        outcome = [error.errno or errno.EIO] * len(changes)
    return [Result(change, _address_error(change, number)) for change, number in zip(changes, outcome, strict=True)]


def _apply_link(change: Change) -> Result:
    link = cast("Link", change.row)
    try:
        device = next((device for device in devices.dump() if device.name == link.name), None)
        if device is not None and not _is_ours(device):
            return Result(change, f"cannot {VERBS[change.action]} {link.name}: it is not a virtual device; rename it")
        if change.new is not None:
            _establish(device, link)
        elif device is not None:
            devices.remove(device)
    except OSError as error:
        return Result(change, str(_link_error(change, error)))
    except LbnodeError as error:
        return Result(change, str(error))
    return Result(change)


def _establish(device: Device | None, link: Link) -> None:
    """Makes the device what the row says, from whatever it is now."""
    if device is None:
        devices.create(link)
    elif device.kind != link.type or not _changed_in_place(device, link):
        _make_anew(device, link)


def _changed_in_place(device: Device, link: Link) -> bool:
    """Whether that worked: the kernel refuses some changes and accepts others without making them (`external`)."""
    try:
        devices.change(device, link)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return any(_link(now) == link for now in devices.dump())


def _make_anew(device: Device, link: Link) -> None:
    vips = [one.address for one in addresses.dump() if one.index == device.index and one.is_host]
    devices.remove(device)
    devices.create(link)
    index = next(fresh.index for fresh in devices.dump() if fresh.name == link.name)
    failed = [
        vip for vip, number in zip(vips, addresses.program([Step(index, vip) for vip in vips]), strict=True) if number
    ]
    if failed:
        raise LbnodeError(f"cannot put back on {link.name}, which was made anew: {', '.join(failed)}")


def _link_error(change: Change, error: OSError) -> LbnodeError:
    link = cast("Link", change.row)
    what = f"cannot {VERBS[change.action]} {link.name}"
    if error.errno == errno.EOPNOTSUPP:
        module = MODULES.get(link.type, link.type)
        return Missing(f"{what}: this kernel has no devices of type {link.type}: module {module} is missing")
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"{what}: that needs root (CAP_NET_ADMIN)")
    if error.errno == errno.EEXIST and link.type in devices.TUNNELS:
        other = f"another {link.type} tunnel has local {link.local or 'any'} remote any already"
        return LbnodeError(f"{what}: {other}")
    return LbnodeError(f"{what}: {error.strerror or error}")


def _address_error(change: Change, number: int) -> str:
    if not number:
        return ""
    row = cast("Address", change.row)
    verb = "remove" if change.action == "delete" else "put"
    what = f"cannot {verb} {row.address} on {row.device}"
    if number == errno.ENODEV:
        return f"{what}: there is no such device"
    if number == errno.EPERM:
        return str(NotPermitted(f"{what}: that needs root (CAP_NET_ADMIN)"))
    if number == errno.EACCES:
        return f"{what}: IPv6 is switched off there (net.ipv6.conf.{row.device}.disable_ipv6)"
    return f"{what}: {os.strerror(number)}"
