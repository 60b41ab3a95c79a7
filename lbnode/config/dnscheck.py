"""What is certain about a cluster file's section `dns`, and what it says against itself and the services. PURE."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lbnode.config.dns import DnsCheck
from lbnode.config.model import IPAddress
from lbnode.config.positions import Path
from lbnode.config.words import Finding, Suggestions, repeated

if TYPE_CHECKING:
    from lbnode.config.draft import Draft, DraftService
    from lbnode.config.sound import Section, Sound

FAMILIES = ("ipv4", "ipv6")


@dataclass(frozen=True)
class DraftDns:
    """`servers`: name, path, and the known addresses with their paths, None when another finding speaks of one;
    `names`: name, path, and the services in its list."""

    servers: tuple[tuple[str, Path, tuple[tuple[Path, IPAddress], ...] | None], ...]
    names: tuple[tuple[str, Path, tuple[tuple[Path, str], ...]], ...]
    check: "Section"


def read(sound: "Sound") -> DraftDns | None:
    """None when there is no such section."""
    if not sound.entries(("dns",)):
        return None
    servers, names = ("dns", "servers"), ("dns", "names")
    return DraftDns(
        servers=tuple((name, (*servers, name), _addresses(sound, (*servers, name))) for name in sound.entries(servers)),
        names=tuple((name, (*names, name), sound.items((*names, name, "services"))) for name in sound.entries(names)),
        check=sound.section(("dns", "check"), DnsCheck),
    )


def _addresses(sound: "Sound", path: Path) -> tuple[tuple[Path, IPAddress], ...] | None:
    texts = {(*path, key): sound.value((*path, key)) for key in FAMILIES}
    if None in texts.values():
        return None
    return tuple((place, ip_address(text)) for place, text in texts.items() if text)


def findings(draft: "Draft", suggestions: Suggestions) -> Iterator[Finding]:
    """Everything that is wrong with the section."""
    if draft.dns is None:
        return
    yield from _servers(draft.dns)
    yield from _timing(draft.dns)
    servers = {name: path for name, path, _ in draft.dns.servers}
    for name, path, services in draft.dns.names:
        if name in servers and name != "@":
            message = f"'{name}' is the name of a DNS server"
            yield Finding(path, message, "choose another for one of them", at_key=True)
        yield from repeated(services, "service '{}' is listed twice")
        yield from _services(draft, services, suggestions)


def _servers(dns: DraftDns) -> Iterator[Finding]:
    from lbnode.config.addresses import unfit

    owner: dict[IPAddress, tuple[str, Path]] = {}
    for name, path, addresses in dns.servers:
        if addresses == ():
            yield Finding(path, f"DNS server '{name}' has no address", "give it ipv4 or ipv6", at_key=True)
        for place, address in addresses or ():
            if reason := unfit(address):
                yield Finding(place, f"{address} is {reason} address, which cannot be a DNS server's address")
            if address in owner:
                other, first = owner[address]
                yield Finding(place, f"{address} is already the address of DNS server '{other}'", first=first)
            owner.setdefault(address, (name, place))


def _timing(dns: DraftDns) -> Iterator[Finding]:
    """gdnsd refuses a timeout that is not shorter than the interval (gdnsd.config(5), service_types)."""
    interval, timeout = dns.check["interval_s"], dns.check["timeout_s"]
    if interval and timeout and timeout >= interval:
        key = "timeout_s" if "timeout_s" in dns.check.given else "interval_s"
        message = f"the timeout of a check, {timeout} s, is not shorter than its interval, {interval} s"
        yield Finding(dns.check.at(key), message, "a check must have ended when the next one begins")


def _services(draft: "Draft", services: tuple[tuple[Path, str], ...], suggestions: Suggestions) -> Iterator[Finding]:
    """They exist, and can be checked in one way: gdnsd has one for all addresses of a name and family."""
    first: tuple[Path, DraftService] | None = None
    for path, name in services:
        service = draft.services.get(name)
        if service is None:
            hint = suggestions.hint(name, draft.services.keys(), "define it under services")
            yield Finding(path, f"there is no service '{name}'", hint)
        elif service.ports and service.protocol:
            if first is not None and _port(first[1]) != _port(service):
                message = f"service '{name}' is at {_port(service)}, but service '{first[1].name}' at {_port(first[1])}"
                yield Finding(path, message, "give each a name of its own", first=first[0])
            first = first or (path, service)


def _port(service: "DraftService") -> str:
    return f"port {service.ports[0][1]}/{service.protocol}"
