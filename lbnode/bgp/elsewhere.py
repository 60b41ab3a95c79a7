"""The sessions of a BIRD or FRR that announces what stands in our route table: lbnode has no part in them, so their own
programs are asked, when somebody wants to see them.

{"peers": {"192.0.2.254": {"state": "up", "since": None, "reason": ""}},
 "speaker": {"running": true, "problem": "", "program": "BIRD"}}
"""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

ASK_S = 5.0
Peers = dict[str, dict[str, Any]]


class Asked(NamedTuple):
    """A speaker's own program, and what makes peers of its answer: by address, or by interface where they have none."""

    name: str
    argv: tuple[str, ...]
    peers: Callable[[str], Peers]


def of_bird(answer: str) -> Peers:
    """`show protocols all`: a line for each protocol, the rest of it indented below."""
    found: Peers = {}
    for part in re.split(r"^(?=\S)", answer, flags=re.MULTILINE):
        words = part.split(maxsplit=5)
        address = re.search(r"^\s+Neighbor address: (\S+)", part, re.MULTILINE)
        if address and words[1] == "BGP":
            state = re.search(r"BGP state: +(\S+)", part)
            error = re.search(r"Last error: +(.+)", part)
            found[address[1]] = _peer(state[1] if state else words[3], error[1] if error else "")
    return found


def of_frr(answer: str) -> Peers:
    """`show bgp summary json`: each family with its peers; one that speaks both is in both."""
    try:
        families = json.loads(answer)
    except ValueError:
        return {}
    rows = [family.get("peers", {}) for family in families.values() if isinstance(family, dict)]
    return {name: _peer(peer["state"], "") for peers in rows for name, peer in peers.items()}


def _peer(state: str, error: str) -> dict[str, Any]:
    up = state == "Established"
    reason = "" if up else f"{state}; {error}" if error else state
    return {"state": "up" if up else "down", "since": None, "reason": reason}


SPEAKERS = (
    Asked("BIRD", ("birdc", "show", "protocols", "all"), of_bird),
    Asked("FRR", ("vtysh", "-c", "show bgp summary json"), of_frr),
)


def report(table: int) -> dict[str, Any]:
    """What the first that answers says."""
    for asked in SPEAKERS:
        try:
            done = subprocess.run(asked.argv, capture_output=True, text=True, timeout=ASK_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return {"peers": asked.peers(done.stdout), "speaker": _speaker(asked.name)}
    words = " and ".join(f"`{' '.join(asked.argv)}`" for asked in SPEAKERS)
    return {"peers": {}, "speaker": _speaker("", f"nobody answers {words}: see there who reads table {table}")}


def _speaker(program: str, problem: str = "") -> dict[str, Any]:
    return {"running": bool(program), "problem": problem, "program": program}


def line(found: Mapping[str, Any]) -> str:
    """`bgp: BIRD announces what stands in table 4711`."""
    speaker = found["speaker"]
    who = f"{speaker['program']} announces" if speaker["running"] else "BIRD or FRR is to announce"
    return f"bgp: {who} what stands in table {found['route_table']}"
