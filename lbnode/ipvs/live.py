"""Flows that this node knows: the entries of IPVS' connection table, which decide before any Maglev table does."""

import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lbnode.errors import NotPermitted
from lbnode.resources import Destination, ServiceKey

CONNECTIONS = Path("/proc/thread-self/net/ip_vs_conn")


@dataclass(frozen=True)
class Entry:
    """A flow that this node knows: it goes to `address`, whatever the table says. `state` as IPVS names it."""

    address: str
    port: int
    state: str
    expires_s: int


def entry(key: ServiceKey, source: str, port: int) -> Entry | None:
    """The flow's entry in the connection table, which is read whole: some 100 bytes per flow of the node."""
    try:
        with CONNECTIONS.open(encoding="ascii") as table:
            return find_entry(table, key, source, port)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotPermitted(f"cannot read {CONNECTIONS}: {error.strerror}") from error


def find_entry(lines: Iterable[str], key: ServiceKey, source: str, port: int) -> Entry | None:
    """Lines as ip_vs_conn_seq_show prints them: `TCP CB007101 4E20 C6336401 0050 C0000201 0050 ESTABLISHED 899`;
    addresses of IPv6 as eight groups of four digits."""
    wanted = [key.protocol.upper(), _in_proc(source), f"{port:04X}", _in_proc(key.vip), f"{key.port:04X}"]
    for line in lines:
        words = line.split()
        if words[:5] == wanted:
            address = words[5] if ":" in words[5] else int(words[5], 16)
            return Entry(str(ip_address(address)), int(words[6], 16), words[7], int(words[8]))
    return None


def has_entries(gone: Collection[Destination], deadline: float) -> bool:
    """Whether the connection table has an entry of any of these destinations. It is read up to the first one; where
    that lasts beyond the deadline (monotonic clock), and where it cannot be read, the answer is yes."""
    wanted = {_place(row) for row in gone}
    try:
        with CONNECTIONS.open(encoding="ascii") as table:
            for number, line in enumerate(table):
                words = line.split()
                if tuple(words[3:7]) in wanted or ("", "", words[5], "") in wanted:
                    return True
                if not number % 1000 and time.monotonic() > deadline:
                    return True
    except OSError:
        return True
    return False


def _place(row: Destination) -> tuple[str, ...]:
    """Words 3 to 6 of an entry's line; of a service by firewall mark the destination's address alone is known."""
    if row.service.protocol == "fwmark":
        return ("", "", _in_proc(row.address), "")
    vip, port = _in_proc(row.service.vip), f"{row.service.port:04X}"
    return (vip, port, _in_proc(row.address), f"{row.real_port:04X}")


def _in_proc(address: str) -> str:
    found = ip_address(address)
    return found.exploded if found.version == 6 else socket.inet_aton(address).hex().upper()
