"""Values as words of haproxy.cfg: whatever stands in the cluster file stays one word of one line. PURE.

Source: configuration manual, 2.2 "Quoting and escaping". Environment variables are only read inside double quotes
(2.3), which are never written here.
"""

import re

from lbnode.config.model import IPAddress
from lbnode.errors import LbnodeError

_ARGUMENT = re.compile(r"[A-Za-z0-9_./:@%+=-]+")


def escaped(value: str) -> str:
    """One word. Raises LbnodeError on control characters, which nothing can quote."""
    if _ARGUMENT.fullmatch(value):
        return value
    if not value or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise LbnodeError(f"cannot write {value!r} into haproxy.cfg: it is empty or holds control characters")
    return re.sub(r"""([\\ #"'])""", r"\\\1", value)


def argument(value: str) -> str:
    """One argument of a sample function, where commas and parentheses mean something too."""
    if not _ARGUMENT.fullmatch(value):
        raise LbnodeError(f"cannot write {value!r} into haproxy.cfg: use letters, digits and . _ / : @ % + = - alone")
    return value


def duration(seconds: float) -> str:
    """HAProxy's notation: `2s`, `500ms`."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


def host(address: IPAddress) -> str:
    """An address before a port."""
    # An IPv6 address may carry a scope (`%eth0`), which is free text to the ipaddress module.
    text = escaped(str(address))
    return f"[{text}]" if address.version == 6 else text
