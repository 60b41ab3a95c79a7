"""The cluster file's section `dns`: names that lead clients to VIPs, and the DNS servers that answer for them.

A name is answered with the VIPs of its services, without those that a DNS server finds unreachable or that an operator
has taken out. What the keys say against each other stands in `lbnode.config.dnscheck`.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from lbnode.config.frozen import Model
from lbnode.config.inorder import InOrder, in_order
from lbnode.config.mistakes import Mistake, shown
from lbnode.config.numbers import Between
from lbnode.config.values import Ipv4, Ipv6, Name, Streak, UriPath

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
ZONE_PATTERN = rf"{LABEL}(\.{LABEL})*"
HOST_PATTERN = rf"(@|{ZONE_PATTERN})"
ZONE_MOST, HOST_MOST = 180, 63
"""Together with the dots they stay below what DNS can carry, 253 characters (RFC 1035, 2.3.4)."""
LABEL_RULE = "use labels of lower-case letters, digits and '-', joined by '.'"


def _zone(value: str) -> str:
    if not re.fullmatch(ZONE_PATTERN, value) or len(value) > ZONE_MOST or "." not in value:
        raise Mistake(f"{shown(value)} cannot be a zone", f"{LABEL_RULE}, such as example.org")
    return value


def _host(value: str) -> str:
    return value if value == "@" else _server(value)


def _server(value: str) -> str:
    if not re.fullmatch(ZONE_PATTERN, value) or len(value) > HOST_MOST:
        raise Mistake(f"{shown(value)} cannot be a name in a zone", LABEL_RULE)
    return value


Zone = Annotated[str, AfterValidator(_zone), WithJsonSchema({"type": "string", "pattern": f"^{ZONE_PATTERN}$"})]
ServerName = Annotated[str, AfterValidator(_server), WithJsonSchema({"type": "string", "pattern": f"^{ZONE_PATTERN}$"})]
Host = Annotated[str, AfterValidator(_host), WithJsonSchema({"type": "string", "pattern": f"^{HOST_PATTERN}$"})]
WholeSeconds = Annotated[int, Between(1, 255)]
Ttl = Annotated[int, Between(5, 86400)]
HttpStatus = Annotated[int, Between(100, 599)]


class DnsServer(Model):
    """One DNS server, a machine of its own."""

    ipv4: Ipv4 | None = Field(None, description="Its own IPv4 address, where it answers.")
    ipv6: Ipv6 | None = Field(None, description="Its own IPv6 address, likewise.")

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)


class DnsName(Model):
    """One name in the zone."""

    services: tuple[Name, ...] = Field(
        min_length=1, description="It is answered with their VIPs, of both families; all have the same first port."
    )


class DnsCheck(Model):
    """How DNS servers check VIPs, on the first port of their services. UDP and SCTP are not checked."""

    path: UriPath = Field(
        "/", description="What is asked for where HAProxy or the pool's check understands HTTP, without TLS."
    )
    host: Name | None = Field(None, description="Host header; none if left out.")
    status: tuple[HttpStatus, ...] = Field((200,), min_length=1, description="The HTTP statuses that mean up.")
    interval_s: WholeSeconds = Field(4, description="Seconds from one check to the next.")
    timeout_s: WholeSeconds = Field(2, description="Seconds after which a check has failed; less than the interval.")
    rise: Streak = Field(2, description="Successes in a row until a VIP is in the answers.")
    fall: Streak = Field(2, description="Failures in a row until it is out; if all are, all are answered.")


class Dns(Model):
    """Names for VIPs, answered by gdnsd."""

    zone: Zone = Field(description="The zone that the names stand in, such as example.org.")
    servers: Annotated[dict[ServerName, DnsServer], AfterValidator(in_order)] = Field(
        min_length=1, description="The DNS servers, by host name; in the zone they have the same names."
    )
    names: Annotated[dict[Host, DnsName], AfterValidator(in_order)] = Field(
        default_factory=InOrder, description="What clients ask for, by name; '@' is the zone itself."
    )
    ttl_s: Ttl = Field(30, description="Seconds for which resolvers may keep an answer.")
    check: DnsCheck = Field(DnsCheck(), description="How VIPs are checked.")
