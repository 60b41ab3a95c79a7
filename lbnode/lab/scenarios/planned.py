"""Which flows an experiment opens: kinds, how many of each, how often they do something."""

from lbnode.lab.clients.crowd import Planned, mix
from lbnode.lab.scenarios.network import Network

KINDS = ("download", "upload", "requests")
UDP_SHARE = 5
"""One in so many long flows goes by UDP."""
TICK_S, TICK_MOST_S = 5.0, 25.0
TICKS_PER_S = 200.0
"""What one slow processor holds beside everything else: more flows tick more slowly, but proxies do not call them
idle. Flows that have something to meet are hurried anyway."""
NEW, NEW_TICK_S = 24, 1.0


def tick_s(flows: int) -> float:
    """How often each of so many flows does something."""
    return min(max(TICK_S, flows / TICKS_PER_S), TICK_MOST_S)


def long_flows(network: Network, count: int) -> list[Planned]:
    """Flows that last, of every kind, to all that the network serves."""
    by_udp = count // UDP_SHARE if network.echoes else 0
    return [*mix(count - by_udp, KINDS, network.steady, network.clients), *datagrams(network, by_udp)]


def datagrams(network: Network, count: int) -> list[Planned]:
    """Flows by UDP, spread evenly over what the network serves by it."""
    echoes = network.echoes
    shares = [count // len(echoes) + (place < count % len(echoes)) for place in range(len(echoes))]
    return [
        flow
        for one, share in zip(echoes, shares, strict=True)
        for flow in mix(share, ("datagrams",), [one.vip], network.clients, one.port)
    ]


def new_requests(network: Network) -> list[Planned]:
    """Short requests all the time."""
    return mix(NEW, ("short",), network.steady, network.clients)
