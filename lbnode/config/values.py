"""The kinds of single values in the cluster file, and what is said when one is wrong.

The file's plain values arrive as the text that was written (see `lbnode.config.positions`), so that `1:20`, `010` or
`no` mean what an operator sees; each kind reads that text strictly here. Python values of the right type pass too, so
that code and tests can build models directly.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from lbnode.config.inorder import in_order
from lbnode.config.mistakes import Mistake, shown
from lbnode.config.numbers import Between

V = TypeVar("V")

NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
PATH_PATTERN = r"/[A-Za-z0-9._~!$&()*+,;=:@%/?-]*"
INTERFACE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"
STATUS_PATTERN = r"[1-5]([0-9][0-9]|xx)"
HOST_PATTERN = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DNS_PATTERN = r"(_[a-z0-9-]{1,15}\.){0,2}" + HOST_PATTERN
TOKEN_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?"  # noqa: S105 - of HTTP, not a secret
FILE_PATTERN = r"/[A-Za-z0-9._/@%+=-]{1,200}"
PAGE_PATTERN = (
    r"/[A-Za-z0-9._/@%+=-]{0,150}/(400|401|403|404|405|407|408|410|413|425|429|500|501|502|503|504)\.(html|json|txt)"
)
SECTION_WORDS = (
    "global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "mailers", "cache",
    "program", "ring", "http-errors", "fcgi-app", "log-forward", "crt-store", "traces", "acme", "log-profile",
)  # fmt: skip
NAME_RULE = "use 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit"
PATH_RULE = "use an absolute path of URL characters, such as /health"
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _name(value: str) -> str:
    """Names reach haproxy.cfg and file names."""
    if not re.fullmatch(NAME_PATTERN, value):
        raise Mistake(f"{shown(value)} cannot be a name", NAME_RULE)
    return value


def _interface(value: str) -> str:
    """It goes into a BGP speaker's configuration; the kernel takes 15 characters (IFNAMSIZ)."""
    if not re.fullmatch(INTERFACE_PATTERN, value):
        raise Mistake(f"{shown(value)} cannot be an interface", "use 1 to 15 letters, digits, '.', '_' or '-'")
    return value


def _uri_path(value: str) -> str:
    """A path goes into HTTP requests and haproxy.cfg: printable ASCII, no blanks, no quoting characters."""
    if not re.fullmatch(PATH_PATTERN, value):
        raise Mistake(f"{shown(value)} is not a path", PATH_RULE)
    return value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in FLAGS:
        raise Mistake(f"{shown(value)} is neither true nor false")
    return FLAGS[value.lower()]


def _address(value: object) -> IPv4Address | IPv6Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    text = value if isinstance(value, str) else ""
    try:
        address = ip_address(text)
    except ValueError:
        raise Mistake(f"{shown(value)} is not an IP address", _mend_address(text)) from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Mistake(f"{shown(value)} names an interface", "write the address alone, without '%'")
    return address


def _mend_address(text: str) -> str:
    """A hint when the text would be an address without its prefix length or its brackets."""
    bare = text.split("/", maxsplit=1)[0].strip(" []")
    try:
        return f"write {ip_address(bare)}"
    except ValueError:
        return ""


def _ipv4(value: object) -> IPv4Address:
    address = _address(value)
    if isinstance(address, IPv6Address):
        raise Mistake(f"{shown(value)} is an IPv6 address, not an IPv4 one", "write it as ipv6")
    return address


def _ipv6(value: object) -> IPv6Address:
    address = _address(value)
    if isinstance(address, IPv4Address):
        raise Mistake(f"{shown(value)} is an IPv4 address, not an IPv6 one", "write it as ipv4")
    return address


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        hint = "write it as 203.0.113.0/24 or 2001:db8::/32"
        if "host bits" in str(error):
            hint = f"write {ip_network(str(value), strict=False)}"
        raise Mistake(f"{shown(value)} is not a network", hint) from None


def _status(value: object) -> str:
    text = str(value)
    if not re.fullmatch(STATUS_PATTERN, text):
        raise Mistake(f"{shown(value)} is not an HTTP status", "write it as 200 or 2xx")
    return text


def _text(value: object) -> str:
    """Goes into requests or is compared with answers: printable, on one line."""
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]{1,200}", value):
        raise Mistake(f"{shown(value)} is not a text", "use 1 to 200 printable ASCII characters")
    return value


def _program(value: object) -> str:
    """The first word of a command: nothing is looked up in a search path."""
    if not isinstance(value, str) or not re.fullmatch(r"/[\x21-\x7e]{1,200}", value):
        raise Mistake(f"{shown(value)} is not an absolute path", "write it as /usr/local/lib/probe")
    return value


def _hostname(value: object) -> str:
    """Lower case, as HAProxy compares it."""
    text = value.lower() if isinstance(value, str) else ""
    if not re.fullmatch(HOST_PATTERN, text) or len(text) > 253:
        raise Mistake(f"{shown(value)} is not a host name", "write it as www.example.com")
    return text


def _host_pattern(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(\*\.)?" + HOST_PATTERN, value.lower()) or len(value) > 253:
        raise Mistake(f"{shown(value)} is not a host name", "write it as www.example.com, or *.example.com")
    return value.lower()


def _dns_name(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if not re.fullmatch(DNS_PATTERN, text) or len(text) > 253:
        raise Mistake(f"{shown(value)} is not a DNS name", "write it as app.example.com, or _http._tcp.example.com")
    return text


def _token(value: object) -> str:
    """The name of a header or cookie."""
    if not isinstance(value, str) or not re.fullmatch(TOKEN_PATTERN, value):
        raise Mistake(f"{shown(value)} cannot be a header or cookie", "use 1 to 64 letters, digits, '-' or '_'")
    return value


def _file(value: object) -> str:
    """A file that lbnode or HAProxy reads; its name also stands in lists and in commands of the runtime API."""
    if not isinstance(value, str) or not re.fullmatch(FILE_PATTERN, value):
        hint = "write an absolute path of letters, digits and . _ @ % + = - such as /etc/lb/tls/www.pem"
        raise Mistake(f"{shown(value)} is not a path of a file", hint)
    return value


def _page(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(PAGE_PATTERN, value):
        hint = "name it by an HTTP status that HAProxy answers itself: /etc/lb/pages/503.html (or .json, .txt)"
        raise Mistake(f"{shown(value)} is not a page", hint)
    return value


def _directive(value: object) -> str:
    """One line of haproxy.cfg, which stays in its section: its first word is read as it stands."""
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]{1,2000}", value):
        raise Mistake(f"{shown(value)} is not a line", "use printable ASCII characters, one line in each item")
    first = (value.split() or [""])[0]
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", first):
        raise Mistake(f"{shown(value)} does not begin with a keyword", "write it as it would stand in haproxy.cfg")
    if first in SECTION_WORDS:
        raise Mistake(f"{shown(value)} begins a section", "a raw line stays in its section")
    return value


IPAddress = Annotated[IPv4Address | IPv6Address, BeforeValidator(_address)]
Ipv4 = Annotated[IPv4Address, BeforeValidator(_ipv4)]
Ipv6 = Annotated[IPv6Address, BeforeValidator(_ipv6)]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})]
Interface = Annotated[
    str, AfterValidator(_interface), WithJsonSchema({"type": "string", "pattern": f"^{INTERFACE_PATTERN}$"})
]
UriPath = Annotated[str, AfterValidator(_uri_path), WithJsonSchema({"type": "string", "pattern": f"^{PATH_PATTERN}$"})]
Prefix = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Status = Annotated[str, BeforeValidator(_status), WithJsonSchema({"type": "string", "pattern": f"^{STATUS_PATTERN}$"})]
Text = Annotated[str, BeforeValidator(_text)]
Program = Annotated[str, BeforeValidator(_program)]
Hostname = Annotated[str, BeforeValidator(_hostname)]
DnsName = Annotated[str, BeforeValidator(_dns_name)]
HostPattern = Annotated[str, BeforeValidator(_host_pattern)]
Token = Annotated[str, BeforeValidator(_token), WithJsonSchema({"type": "string", "pattern": f"^{TOKEN_PATTERN}$"})]
FilePath = Annotated[str, BeforeValidator(_file), WithJsonSchema({"type": "string", "pattern": f"^{FILE_PATTERN}$"})]
Page = Annotated[str, BeforeValidator(_page)]
Directive = Annotated[str, BeforeValidator(_directive)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Port = Annotated[int, Between(1, 65535)]
Seconds = Annotated[float, Between(0.01, 86400)]
Asn = Annotated[int, Between(1, 4294967295)]
Idle = Annotated[int, Between(1, 604800)]
Streak = Annotated[int, Between(1, 100)]
Named = Annotated[dict[Name, V], AfterValidator(in_order)]
