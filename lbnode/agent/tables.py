"""The Maglev tables of this node as its kernel has them, for `lbnode explain` on another node.

    {"node": "l4-1", "announced": ["198.51.100.1"], "tables": {"198.51.100.1:80/tcp": {
        "scheduler": "mh", "flags": ["mh-fallback", "mh-port"], "size": 4093, "fingerprint": "72c79c86d424",
        "rows": [{"address": "192.0.2.193", "port": 80, "weight": 100, "table_weight": 100}]}}}

`rows` are all destinations, whoever made them, oldest first; `table_weight` of one at weight 0 is what the desired
state says, for the kernel does not tell. `fingerprint` is empty where the scheduler has no such table.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lbnode import impact, maglev
from lbnode.ipvs import codec, rows
from lbnode.ipvs.netlink import GenericNetlink, Request
from lbnode.maglev import Server
from lbnode.resources import Destination, Row, ServiceKey, VirtualService


def read(wanted: Iterable[Row], service: str = "") -> dict[str, dict[str, Any]]:
    """By service, as `str(ServiceKey)`; only that one if `service` is not empty; none that is there for probes alone.
    Raises Missing without IPVS, NotPermitted without CAP_NET_ADMIN."""
    known = weights(wanted)
    return {
        str(key): table(key, record, newest_first, known.get(key, {}))
        for key, record, newest_first in _services(service)
    }


def weights(wanted: Iterable[Row]) -> dict[ServiceKey, dict[str, int]]:
    """The table weights that are wanted, by service and name of the destination."""
    found: dict[ServiceKey, dict[str, int]] = {}
    for row in wanted:
        if isinstance(row, Destination):
            found.setdefault(row.service, {})[row.name] = row.table_weight
    return found


def table(
    key: ServiceKey, record: codec.Service, newest_first: list[codec.Destination], known: Mapping[str, int]
) -> dict[str, Any]:
    """One service, from the kernel's records."""
    usual = impact.usual(item.weight for item in newest_first)
    servers = [
        Server(item.address, item.port, item.weight, item.weight or known.get(rows.name_of(key, item), usual))
        for item in reversed(newest_first)
    ]
    flags = next(row.flags for row in rows.rows_of(key, record, ()) if isinstance(row, VirtualService))
    mark = ""
    if record.scheduler == impact.SCHEDULER and len(servers) <= maglev.SLOTS:
        mark = maglev.fingerprint(maglev.build(servers, impact.family(key), flags=flags))
    return {
        "scheduler": record.scheduler,
        "flags": list(flags),
        "size": maglev.SLOTS,
        "fingerprint": mark,
        "rows": [server._asdict() for server in servers],
    }


def _services(only: str) -> Iterator[tuple[ServiceKey, codec.Service, list[codec.Destination]]]:
    with GenericNetlink(codec.FAMILY) as link:
        for payload in list(link.dump(Request(codec.Command.GET_SERVICE))):
            record = codec.decode_service(payload)
            key = rows.key_of(record)
            if key is None or key.carries_probes or (only and str(key) != only):
                continue
            dump = link.dump(codec.destinations_query(record))
            yield key, record, [codec.decode_destination(item) for item in dump]
