"""What status and metrics say of BGP on this node, from what the relay has left behind.

{"peers": {"192.0.2.129": {"state": "up", "since": 1795212000.5, "reason": ""}},
 "told": [{"peer": "192.0.2.129", "prefix": "198.51.100.1/32", "next_hop": "192.0.2.141", "med": None,
           "communities": ["65535:0"], ...}],
 "speaker": {"running": true, "problem": "", "agent_gone": None}}
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from lbnode.bgp.told import read_told
from lbnode.config.bgp import Bgp
from lbnode.paths import Paths

SHOWN = 3


def report(bgp: Bgp, paths: Paths) -> dict[str, Any]:
    """Of a node that announces. Empty where ExaBGP does not run; with another speaker only the number of the table that
    it announces from, for its own programs say the rest (`lbnode.bgp.elsewhere`).

    Raises LbnodeError when what the relay wrote cannot be read.
    """
    if bgp.speaker != "exabgp":
        return {"route_table": bgp.table}
    told = read_told(paths)
    if told is None:
        return {"peers": {}, "told": [], "speaker": {"running": False, "problem": "", "agent_gone": None}}
    return {
        "peers": told.peers,
        "told": [asdict(row) for row in told.announced],
        "speaker": {"running": True, "problem": told.problem, "agent_gone": told.agent_gone},
    }


def attributes(route: Mapping[str, Any]) -> str:
    """`via 192.0.2.141, med 100, community 65535:0`."""
    words = [f"via {route['next_hop']}"]
    words += [f"med {route['med']}"] if route["med"] is not None else []
    words += [f"local preference {route['local_preference']}"] if route["local_preference"] is not None else []
    words += [f"prepended {route['prepend']} times"] if route["prepend"] else []
    words += [f"community {one}" for one in (*route["communities"], *route["large_communities"])]
    return ", ".join(words)


def lines(found: Mapping[str, Any]) -> list[str]:
    """A line per peer with its state, and one for each set of attributes that it was told something with."""
    said: list[str] = []
    for address, peer in found.get("peers", {}).items():
        reason = f"  # {peer['reason']}" if peer.get("reason") else ""
        said.append(f"peer {address}: {peer['state']}{reason}")
        groups: dict[str, list[str]] = {}
        for route in found.get("told", ()):
            if route["peer"] == address:
                groups.setdefault(attributes(route), []).append(route["prefix"])
        said += [f"  told {_some(prefixes)} {words}" for words, prefixes in groups.items()]
    problem = found.get("speaker", {}).get("problem")
    name = "bgp" if "route_table" in found else "exabgp"
    return [*said, *([f"{name}: {problem}"] if problem else [])]


def _some(prefixes: Iterable[str]) -> str:
    every = list(prefixes)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
