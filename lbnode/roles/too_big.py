"""How an L4 node hears that its own IPv6 tunnel packets are too big for the way to a real server. PURE.

A router on that way sends the ICMPv6 error to the L4 node, and the kernel learns the path MTU from it only by a tunnel
device of the same kind with this local address (net/ipv6/ip6_tunnel.c, ip6_tnl_err; ip6_gre.c, ip6gre_err); by GUE it
also takes the port (net/ipv6/fou6.c, gue6_err). IPVS then tells the client. Without, uploads of full packets stall for
good. IPv4 needs none of it: routers may fragment what IPVS sends.

The device is there to listen to errors. What is tunnelled to this node is not taken out and passed on.
"""

from collections.abc import Iterable

from lbnode.config.model import Node, Service
from lbnode.resources import FouPort, Link, Row, Sysctl
from lbnode.roles.direct_return import GRE6, TUNNEL6


def listeners(node: Node, services: Iterable[Service]) -> tuple[Row, ...]:
    """Devices, ports and settings, each once."""
    found: dict[Row, None] = {}
    if node.ipv6:
        for service in services:
            if service.ipvs.forwarding == "tunnel" and any(vip.version == 6 for vip in service.vips):
                found.update(dict.fromkeys(_listener(service, str(node.ipv6))))
    return tuple(found)


def _listener(service: Service, own: str) -> list[Row]:
    name = GRE6 if service.ipvs.tunnel == "gre" else TUNNEL6
    found: list[Row] = [
        Link(name, "ip6gre" if name == GRE6 else "ip6tnl", own),
        Sysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1"),
        Sysctl(f"net.ipv4.conf.{name}.forwarding", "0"),
    ]
    return [*found, FouPort(6, service.ipvs.tunnel_port)] if service.ipvs.tunnel == "gue" else found
