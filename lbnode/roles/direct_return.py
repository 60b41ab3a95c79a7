"""What L7 nodes and backends share: taking packets out of the tunnel and answering the client directly. PURE.

The VIPs stand on a device of ours, so that the kernel takes what comes out of the tunnel for its own; the tunnel
devices have no remote end, so any L4 node may send; the answer leaves by the default route and passes no L4 node.
"""

from collections.abc import Iterable

from lbnode.config.model import IPAddress, Node, Service
from lbnode.resources import Address, FouPort, Link, Row, Sysctl
from lbnode.roles.prober import FAMILIES

VIP_LINK = "lb-vip"
TUNNEL4 = "lb-ipip"
TUNNEL6 = "lb-ip6"
GRE4, GRE6 = "lb-gre", "lb-gre6"

# A real server on the L4 nodes' own link must not say that the VIPs are at its address (ip-sysctl.rst).
QUIET_ABOUT_VIPS = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}


def rows(node: Node, services: Iterable[Service]) -> tuple[Row, ...]:
    """Devices, addresses and settings that these services need; nothing when they need none."""
    served = [service for service in services if service.ipvs.forwarding != "masquerade"]
    vips = {vip for service in served for vip in service.vips}
    if not vips:
        return ()
    found: dict[Row, None] = dict.fromkeys(_on_device(vips))
    for service in served:
        for version in FAMILIES:
            if any(vip.version == version for vip in service.vips):
                found.update(dict.fromkeys(_receiver(service, node.address(version))))
    return tuple(found)


def standing(vips: Iterable[IPAddress]) -> tuple[Row, ...]:
    """What VIPs need that routers send here without a tunnel; nothing when there are none."""
    wanted = set(vips)
    if not wanted:
        return ()
    quiet = QUIET_ABOUT_VIPS if any(vip.version == 4 for vip in wanted) else {}
    return (*(Sysctl(name, value) for name, value in quiet.items()), *_on_device(wanted))


def _on_device(vips: set[IPAddress]) -> list[Row]:
    ordered = sorted(vips, key=lambda vip: (vip.version, int(vip)))
    return [Link(VIP_LINK, "dummy"), *(Address(str(vip), VIP_LINK) for vip in ordered)]


def _receiver(service: Service, own: IPAddress | None) -> list[Row]:
    """What takes a service's packets of one family out of their tunnel at an address of this node."""
    if own is None:
        return []
    four = own.version == 4
    if service.ipvs.forwarding == "route":
        return [Sysctl(name, value) for name, value in QUIET_ABOUT_VIPS.items()] if four else []
    if service.ipvs.tunnel == "gre":
        checksum = service.ipvs.tunnel_checksum == "full"
        link = Link(GRE4 if four else GRE6, "gre" if four else "ip6gre", str(own), checksum=checksum)
    else:
        link = Link(TUNNEL4, "ipip", str(own)) if four else Link(TUNNEL6, "ip6tnl", str(own))
    found: list[Row] = [link]
    if service.ipvs.tunnel == "gue":
        found.append(FouPort(4 if four else 6, service.ipvs.tunnel_port))
    if four:
        # The reverse path of a client's address is the default route, never the tunnel; the kernel takes the greater of
        # "all" and the device (Documentation/networking/ip-sysctl.rst).
        found += [Sysctl(f"net.ipv4.conf.{name}.rp_filter", "0") for name in ("all", link.name)]
    return found
