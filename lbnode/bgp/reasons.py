"""Why a BGP session is down, in an operator's words instead of ExaBGP's. PURE, and only the standard library.

The two versions of ExaBGP wrap the same facts in different words; the numbers of a NOTIFICATION are what counts.
"""

import re

ERRORS = {  # RFC 4271, 4.5
    1: "message header error",
    2: "OPEN message error",
    3: "UPDATE message error",
    4: "hold timer expired",
    5: "finite state machine error",
    6: "cease",
}
DETAILS = {  # RFC 4271, 6.2; RFC 5492; RFC 4486; RFC 8538
    (2, 1): "unsupported version",
    (2, 2): "wrong AS number",
    (2, 3): "bad BGP identifier",
    (2, 6): "unacceptable hold time",
    (2, 7): "unsupported capability",
    (6, 1): "too many prefixes",
    (6, 2): "administrative shutdown",
    (6, 3): "peer not configured",
    (6, 4): "administrative reset",
    (6, 5): "connection rejected",
    (6, 6): "other configuration change",
    (6, 7): "connection collision",
    (6, 8): "out of resources",
    (6, 9): "hard reset",
    (6, 10): "BFD down",
}
NO_CONNECTION = "no connection: the peer refuses or closes it, or is not there"
NO_ANSWER = "no answer yet"
SECURED = f"{NO_ANSWER}, as when the passwords or the TTL security of both sides do not fit"


def explained(reason: str) -> str:
    """What ExaBGP gives as the reason of a session's end, in words; unknown ones as they are."""
    match = re.search(r"notification (received|sent) \((\d+),(\d+)\)", reason)
    if match:
        code, detail = int(match[2]), int(match[3])
        words = ", ".join(filter(None, (ERRORS.get(code, f"error {code}"), DETAILS.get((code, detail)))))
        said = "the peer said" if match[1] == "received" else "told the peer"
        return f"{said}: {words} (NOTIFICATION {code}/{detail})"
    return NO_CONNECTION if "closing connection" in reason else reason


def silent(secured: bool) -> str:
    """Of a peer that has not answered since it is known. A packet with the wrong password, or from too far away, is
    dropped by the kernel of the other side: nobody ever says a word about it."""
    return SECURED if secured else NO_ANSWER
