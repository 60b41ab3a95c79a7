"""From the changes of a plan to the messages that carry them out, and from an errno back to words. PURE.

Four facts of the kernel shape it (ip_vs_ctl.c, ip_vs_mh.c):
- A destination is added at the head of its service's list, and the Maglev table is built in list order. So the order
  is mended by taking rows out and adding them again, oldest first (`lbnode.ipvs.order`).
- The table is built with the last weight above 0, and a row added at 0 has none. So a row that is down is added with
  its table weight and set to 0 at once.
- Between a row's removal and its return packets of its flows are dropped; both go in one group, side by side. Under
  traffic the scheduler is never switched for it: that refuses new flows meanwhile. (`expire_nodest_conn` must be 0, or
  flows move.)
- Every message about a destination builds the table anew, some 0.1 ms. A service without a scheduler has no table: so
  where no client's packet comes, many destinations are added under scheduler `none`, and the last message says mh.
  Going from `none` to mh costs no RCU grace period, as leaving any other scheduler does (ip_vs_edit_service).
"""

import errno
import os
from collections.abc import Iterable, Mapping

from lbnode import impact
from lbnode.errors import LbnodeError
from lbnode.ipvs import codec, rows, timeouts
from lbnode.ipvs.codec import Command
from lbnode.ipvs.messages import Request
from lbnode.plan import Change
from lbnode.resources import Destination, IpvsTimeouts, ServiceKey, VirtualService

NO_SCHEDULER = "none"
"""A service may have no scheduler (ip_vs_ctl.c, ip_vs_add_service; Linux 4.14 has it, mh came with 4.18)."""

_VERBS = {"create": "add", "update": "change", "delete": "delete"}
_REASONS = {
    errno.ESRCH: "no such virtual service",
    errno.EEXIST: "it exists already",
    errno.EINVAL: "the kernel refuses these settings",
}


def requests(change: Change) -> list[Request]:
    """What carries out a change of the time-outs, a service or a destination."""
    row = change.row
    if isinstance(row, IpvsTimeouts):
        # A setting of the kernel has no end: what nobody wants any more stays as it is.
        return [timeouts.request(row)] if change.new else []
    if isinstance(row, VirtualService):
        return [_service(change, row)]
    if not isinstance(row, Destination):
        raise LbnodeError(f"cannot change a {row.KIND} through IPVS")
    if change.new is None:
        return [_destination(Command.DEL_DEST, row, 0)]
    if isinstance(change.old, Destination):
        return _set(row, was=change.old.weight)
    return _add(rows.record_of_key(row.service), rows.record_of_destination(row, row.weight), row.table_weight)


def instead(change: Change) -> list[Request]:
    """What carries out a create when somebody else was faster (EEXIST)."""
    row = change.row
    if isinstance(row, VirtualService):
        return [with_scheduler(row)]
    return _set(row, was=-1) if isinstance(row, Destination) else []


def moves(
    key: ServiceKey,
    records: Mapping[str, codec.Destination],
    moving: Iterable[str],
    table_weights: Mapping[str, int],
) -> list[list[Request]]:
    """One group per destination to move, in that order. `records` are the kernel's, by name; `table_weights` count for
    destinations that stand at 0; one that has none there, for it leaves, is added with the commonest of the service."""
    service = rows.record_of_key(key)
    usual = impact.usual(record.weight for record in records.values())
    groups = []
    for name in moving:
        record = records[name]
        delete = codec.destination_request(Command.DEL_DEST, service, record)
        groups.append([delete, *_add(service, record, table_weights.get(name, usual))])
    return groups


def without_scheduler(command: Command, row: VirtualService) -> Request:
    """NEW_SERVICE or SET_SERVICE with no scheduler: no flow finds a destination, no message builds a table."""
    return codec.service_request(command, rows.record_of_key(row.service)._replace(scheduler=NO_SCHEDULER))


def anew(row: VirtualService) -> list[Request]:
    """An empty service, made again without a scheduler."""
    gone = codec.service_request(Command.DEL_SERVICE, rows.record_of_key(row.service))
    return [gone, without_scheduler(Command.NEW_SERVICE, row)]


def with_scheduler(row: VirtualService) -> Request:
    """SET_SERVICE with all settings."""
    return codec.service_request(Command.SET_SERVICE, rows.record_of_service(row))


def error(change: Change, code: int) -> str:
    """What became of a change, in words; empty when it is done. A delete of what has gone already is done."""
    if not code or (change.new is None and code in (errno.ENOENT, errno.ESRCH)):
        return ""
    missing = "no such scheduler" if isinstance(change.row, VirtualService) else "no such destination"
    reason = _REASONS.get(code) or (missing if code == errno.ENOENT else os.strerror(code))
    return f"{cannot(change)}: {reason} ({errno.errorcode.get(code, code)})"


def cannot(change: Change) -> str:
    """`cannot add destination 198.51.100.1:80/tcp -> 192.0.2.201`."""
    return f"cannot {_VERBS[change.action]} {change.row.KIND.replace('-', ' ')} {change.row.title}"


def _service(change: Change, row: VirtualService) -> Request:
    if change.new is None:
        return codec.service_request(Command.DEL_SERVICE, rows.record_of_key(row.service))
    command = Command.NEW_SERVICE if change.old is None else Command.SET_SERVICE
    return codec.service_request(command, rows.record_of_service(row))


def _add(service: codec.Service, record: codec.Destination, table_weight: int) -> list[Request]:
    """NEW_DEST; for one at weight 0, NEW_DEST with its table weight and SET_DEST to 0."""
    if record.weight or not table_weight:
        return [codec.destination_request(Command.NEW_DEST, service, record)]
    held = record._replace(weight=table_weight)
    return [
        codec.destination_request(Command.NEW_DEST, service, held),
        codec.destination_request(Command.SET_DEST, service, record),
    ]


def _set(row: Destination, was: int) -> list[Request]:
    """SET_DEST. A row on its way to 0 from another weight than its table weight passes through that one, so that the
    table does not depend on what this node went through."""
    weights = [row.weight]
    if not row.weight and was not in (0, row.table_weight):
        weights.insert(0, row.table_weight)
    return [_destination(Command.SET_DEST, row, weight) for weight in weights]


def _destination(command: Command, row: Destination, weight: int) -> Request:
    record = rows.record_of_destination(row, weight)
    return codec.destination_request(command, rows.record_of_key(row.service), record)
