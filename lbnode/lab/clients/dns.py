"""As much DNS as the lab's users need: one question by UDP for the addresses behind a name (RFC 1035, 4).

An own client, for questions must be asked from a client's own address, in its network namespace, and answers looked at
as they are: nobody caches, follows or retries here.
"""

import secrets
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

TYPES = {4: 1, 6: 28}
"""A and AAAA, by the family of the addresses (RFC 1035, 3.2.2; RFC 3596, 2.1)."""
INTERNET = 1
RESPONSE, AUTHORITATIVE = 0x8000, 0x0400
PORT = 53
TIMEOUT_S = 2.0


class BadAnswer(ValueError):
    """What came is no answer to the question."""


@dataclass(frozen=True)
class Addresses:
    """What a server says about a name. `code` is the RCODE: 0 no error, 3 no such name, 5 refused."""

    code: int
    authoritative: bool
    addresses: frozenset[str] = frozenset()
    ttl_s: int = 0


def ask(server: str, name: str, version: int, source: str, timeout_s: float = TIMEOUT_S) -> Addresses:
    """Asks a server for a name's addresses of one family. Raises OSError (TimeoutError), BadAnswer."""
    number = secrets.randbelow(1 << 16)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        channel.settimeout(timeout_s)
        channel.bind((source, 0))
        channel.connect((server, PORT))
        channel.send(question(number, name, version))
        return answer(channel.recv(4096), number, name, version)


def question(number: int, name: str, version: int) -> bytes:
    """The message that asks."""
    head = struct.pack("!6H", number, 0, 1, 0, 0, 0)
    return head + _name(name) + struct.pack("!2H", TYPES[version], INTERNET)


def _name(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def answer(message: bytes, number: int, name: str, version: int) -> Addresses:
    """What a message says. Raises BadAnswer when it is cut short, or answers something else."""
    try:
        found, flags, questions, count, _, _ = struct.unpack_from("!6H", message)
        asked = question(number, name, version)[12:]
        if found != number or not flags & RESPONSE or questions != 1 or message[12 : 12 + len(asked)] != asked:
            raise BadAnswer(f"not an answer to {name}")
        place = 12 + len(asked)
        addresses: dict[str, int] = {}
        for _ in range(count):
            place = _after_name(message, place)
            kind, _, ttl_s, length = struct.unpack_from("!HHIH", message, place)
            place += 10 + length
            if kind == TYPES[version]:
                addresses[str(ip_address(message[place - length : place]))] = ttl_s
    except (struct.error, IndexError, ValueError) as error:
        raise BadAnswer(f"cannot read the answer for {name}: {error}") from error
    authoritative = bool(flags & AUTHORITATIVE)
    return Addresses(flags & 0xF, authoritative, frozenset(addresses), min(addresses.values(), default=0))


def _after_name(message: bytes, place: int) -> int:
    """Where a name ends: after its last label, or after the pointer to the rest of it (RFC 1035, 4.1.4)."""
    while message[place]:
        if message[place] & 0xC0 == 0xC0:
            return place + 2
        place += 1 + message[place]
    return place + 1
