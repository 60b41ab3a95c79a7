"""A table of rows in the words of `ipvsadm --restore`, for people and for a day on which nothing else works. PURE.

`--restore` carries out one line after the other, and the kernel puts each destination at the head of its list: so a
service's destinations are printed oldest first, as the driver adds them, and the Maglev table comes out the same. A
row at weight 0 is added with its table weight and then set to 0, for the same reason (see `lbnode.ipvs.steps`).
`ipvsadm -Sn` prints the same lines, but sorts them, and leaves out thresholds.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network

from lbnode.errors import LbnodeError
from lbnode.resources import Destination, Protocol, Row, ServiceKey, VirtualService

_PROTOCOLS: dict[Protocol, str] = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
_FORWARDING = {"tunnel": "-i", "route": "-g", "masquerade": "-m"}
_CHECKSUMS = {"none": "--tun-nocsum", "full": "--tun-csum", "remote": "--tun-remcsum"}


def restore(rows: Iterable[Row]) -> str:
    """The commands, one a line, services in the order of their keys; rows of other kinds do not count.

    Raises LbnodeError for a flag that ipvsadm has no word for.
    """
    found = list(rows)
    lines: list[str] = []
    for service in sorted((row for row in found if isinstance(row, VirtualService)), key=lambda row: row.service):
        lines.append(_service(service))
        table = [row for row in found if isinstance(row, Destination) and row.service == service.service]
        for row in sorted(table, key=lambda row: (row.serial, row.address, row.port)):
            lines += _destination(row)
    return "".join(f"{line}\n" for line in lines)


def _service(row: VirtualService) -> str:
    own = [flag for flag in row.flags if flag.startswith((f"{row.scheduler}-", "flag-"))]
    # ipvsadm schedules single packets of UDP alone.
    known = {*own, "persistent"} | ({"one-packet"} if row.service.protocol in ("udp", "fwmark") else set())
    if unknown := [flag for flag in row.flags if flag not in known]:
        raise LbnodeError(f"cannot print {row.title} for ipvsadm: flag {unknown[0]!r} has no word there")
    words = [f"-A {_key(row.service)} -s {row.scheduler}"]
    if "persistent" in row.flags:
        words.append(f"-p {row.timeout_s}" + (f" -M {_mask(row)}" if row.prefix else ""))
    words += ["-o"] if "one-packet" in row.flags else []
    words += [f"-b {','.join(own)}"] if own else []
    return " ".join(words)


def _destination(row: Destination) -> list[str]:
    names = f"{_key(row.service)} -r {_host(row.address)}:{row.real_port} {_FORWARDING[row.forwarding]}"
    settings = f" -x {row.upper} -y {row.lower}" if row.upper else ""
    settings += _tunnel(row) if row.forwarding == "tunnel" else ""
    added = f"-a {names} -w {row.weight or row.table_weight}{settings}"
    return [added] if row.weight or not row.table_weight else [added, f"-e {names} -w 0{settings}"]


def _tunnel(row: Destination) -> str:
    port = f" --tun-port {row.tunnel_port}" if row.tunnel == "gue" else ""
    checksum = f" {_CHECKSUMS[row.tunnel_checksum]}" if row.tunnel != "ipip" else ""
    return f" --tun-type {row.tunnel}{port}{checksum}"


def _key(service: ServiceKey) -> str:
    if service.protocol == "fwmark":
        return f"-f {service.port}" + (" -6" if ":" in service.vip else "")
    return f"{_PROTOCOLS[service.protocol]} {_host(service.vip)}:{service.port}"


def _mask(row: VirtualService) -> str:
    return str(row.prefix) if ":" in row.service.vip else str(IPv4Network((0, row.prefix)).netmask)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
