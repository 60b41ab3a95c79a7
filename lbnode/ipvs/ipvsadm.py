"""A table of rows in the words of `ipvsadm --restore`, for people and for a day on which nothing else works. PURE.

`--restore` carries out one line after the other, and the kernel puts each destination at the head of its list: so a
service's destinations are printed oldest first, as the driver adds them, and the Maglev table comes out the same. A
row at weight 0 is added with its table weight and then set to 0, for the same reason (see `lbnode.ipvs.steps`).
`ipvsadm -Sn` prints the same lines, but sorts them and knows nothing of the order.
"""

from collections.abc import Iterable

from lbnode.errors import LbnodeError
from lbnode.resources import Destination, Protocol, Row, ServiceKey, VirtualService

_PROTOCOLS: dict[Protocol, str] = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
_FORWARDING = {"tunnel": "-i", "route": "-g", "masquerade": "-m"}
_TUNNELS = {"ipip": " --tun-type ipip", "gue": " --tun-type gue --tun-port 6080", "gre": " --tun-type gre"}


def restore(rows: Iterable[Row]) -> str:
    """The commands, one a line, services in the order of their keys; rows of other kinds do not count.

    Raises LbnodeError for a flag that ipvsadm has no word for.
    """
    found = list(rows)
    lines: list[str] = []
    for service in sorted((row for row in found if isinstance(row, VirtualService)), key=lambda row: row.service):
        lines.append(_service(service))
        table = [row for row in found if isinstance(row, Destination) and row.service == service.service]
        for row in sorted(table, key=lambda row: (row.serial, row.address)):
            lines += _destination(row)
    return "".join(f"{line}\n" for line in lines)


def _service(row: VirtualService) -> str:
    flags = ",".join(flag for flag in row.flags if flag.startswith((f"{row.scheduler}-", "flag-")))
    if unknown := [flag for flag in row.flags if flag not in flags.split(",")]:
        raise LbnodeError(f"cannot print {row.title} for ipvsadm: flag {unknown[0]!r} has no word there")
    return f"-A {_key(row.service)} -s {row.scheduler}" + (f" -b {flags}" if flags else "")


def _destination(row: Destination) -> list[str]:
    names = f"{_key(row.service)} -r {_host(row.address)}:{row.service.port} {_FORWARDING[row.forwarding]}"
    tunnel = _TUNNELS[row.tunnel] if row.forwarding == "tunnel" else ""
    added = f"-a {names} -w {row.weight or row.table_weight}{tunnel}"
    return [added] if row.weight or not row.table_weight else [added, f"-e {names} -w 0{tunnel}"]


def _key(service: ServiceKey) -> str:
    return f"{_PROTOCOLS[service.protocol]} {_host(service.vip)}:{service.port}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
