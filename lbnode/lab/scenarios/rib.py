"""What a router's BIRD knows: which machine told it which prefix, with which communities, and how its sessions are. Its
kernel has only the best of these."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lbnode.lab.build import BIRD_SOCKET
from lbnode.lab.namespaces import Node
from lbnode.lab.routing import sessions
from lbnode.lab.scenarios.network import Network

ROUTE = re.compile(r"(\S+/\d+)?\s+unicast \[(\S+) ")
COMMUNITY = re.compile(r"\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Route:
    """One path; `session` is BIRD's name for who told it."""

    prefix: str
    session: str
    communities: tuple[str, ...] = ()


def heard(network: Network, router: str, name: str) -> list[Route]:
    """What a router was told by one machine. Asks for all of that machine's sessions."""
    labels = {session.label for session in sessions(network.lab.topology, router) if session.name == name}
    lines = _asked(network.node(router), "show route all")
    return [route for route in routes(lines) if route.session in labels]


def heard_anywhere(network: Network, name: str) -> list[Route]:
    """What any router was told by one machine."""
    return [route for router in network.routes for route in heard(network, router, name)]


def established(network: Network, name: str) -> dict[str, float]:
    """The sessions with one machine that are up, by router and BIRD's name for them: since when, seconds of the day."""
    found = {}
    for router in network.routes:
        labels = {session.label for session in sessions(network.lab.topology, router) if session.name == name}
        for line in _asked(network.node(router), "show protocols"):
            words = line.split()
            if words and words[0] in labels and words[-1] == "Established":
                hours, minutes, seconds = map(float, words[4].split(":"))
                found[f"{router} {words[0]}"] = 3600 * hours + 60 * minutes + seconds
    return found


def same_sessions(before: dict[str, float], now: dict[str, float]) -> bool:
    """Whether none has begun anew. BIRD works the time out from a clock of its own, so it strays by milliseconds."""
    return before.keys() == now.keys() and all(abs(now[key] - since) < 1 for key, since in before.items())


def withdrawals(network: Network, name: str) -> int:
    """How many withdrawals routers have received from one machine since its sessions came up."""
    total = 0
    for router in network.routes:
        for session in sessions(network.lab.topology, router):
            if session.name == name:
                lines = _asked(network.node(router), f"show protocols all {session.label}")
                words = next((line.split() for line in lines if "Import withdraws:" in line), [])
                total += int(words[2]) if words else 0
    return total


def routes(lines: Iterable[str]) -> list[Route]:
    """`show route all`: a path's line names the prefix unless it is that of the path above; attributes follow it."""
    found: list[Route] = []
    prefix = ""
    for line in lines:
        if match := ROUTE.match(line):
            prefix = match[1] or prefix
            found.append(Route(prefix, match[2]))
        elif found and line.strip().startswith("BGP.community:"):
            last = found[-1]
            found[-1] = Route(last.prefix, last.session, tuple(f"{a}:{b}" for a, b in COMMUNITY.findall(line)))
    return found


def _asked(node: Node, command: str) -> list[str]:
    return node.run(["birdc", "-s", str(BIRD_SOCKET), *command.split()], check=True).stdout.splitlines()
