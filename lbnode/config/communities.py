"""BGP communities as an operator writes them: `65001:100`, a well-known name, or large ones as `65001:1:2`. PURE."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from lbnode.config.mistakes import Mistake, shown

WELL_KNOWN = {
    "graceful-shutdown": "65535:0",  # RFC 8326
    "blackhole": "65535:666",  # RFC 7999
    "no-export": "65535:65281",  # RFC 1997
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "no-peer": "65535:65284",  # RFC 3765
}
COMMUNITY_PATTERN = r"(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,4})"
LARGE_PATTERN = r"(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9})"
NAMES = "|".join(WELL_KNOWN)


def _community(value: object) -> str:
    text = str(value)
    if text in WELL_KNOWN:
        return WELL_KNOWN[text]
    match = re.fullmatch(COMMUNITY_PATTERN, text)
    if not match or any(int(part) > 0xFFFF for part in match.groups()):
        if _is_large(text):
            raise Mistake(f"{shown(value)} is a large community", "write it under large_communities")
        hint = f"write two numbers up to 65535, as 65001:100, or one of {', '.join(WELL_KNOWN)}"
        raise Mistake(f"{shown(value)} is not a community", hint)
    return text


def _large(value: object) -> str:
    text = str(value)
    if not _is_large(text):
        raise Mistake(f"{shown(value)} is not a large community", "write three numbers up to 4294967295, as 65001:1:2")
    return text


def _is_large(text: str) -> bool:
    match = re.fullmatch(LARGE_PATTERN, text)
    return match is not None and all(int(part) <= 0xFFFFFFFF for part in match.groups())


Community = Annotated[
    str,
    BeforeValidator(_community),
    WithJsonSchema({"type": "string", "pattern": f"^({COMMUNITY_PATTERN}|{NAMES})$"}),
]
LargeCommunity = Annotated[
    str, BeforeValidator(_large), WithJsonSchema({"type": "string", "pattern": f"^{LARGE_PATTERN}$"})
]
