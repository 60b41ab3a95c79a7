"""What L7 nodes and backends share: taking packets out of the tunnel and answering the client directly. PURE.

The VIPs stand on a device of ours, so that the kernel takes what comes out of the tunnel for its own; the tunnel
devices have no remote end, so any L4 node may send; the answer leaves by the default route and passes no L4 node.
"""

from collections.abc import Iterable

from lbnode.config.model import IPAddress, Node
from lbnode.resources import Address, Link, Row, Sysctl

VIP_LINK = "lb-vip"
TUNNEL4 = "lb-ipip"
TUNNEL6 = "lb-ip6"


def rows(node: Node, vips: Iterable[IPAddress]) -> tuple[Row, ...]:
    """Devices, addresses and settings for these VIPs; nothing when there are none."""
    wanted = sorted(set(vips), key=lambda vip: (vip.version, int(vip)))
    if not wanted:
        return ()
    found: list[Row] = [Link(VIP_LINK, "dummy"), *(Address(str(vip), VIP_LINK) for vip in wanted)]
    if node.ipv4 and any(vip.version == 4 for vip in wanted):
        found.append(Link(TUNNEL4, "ipip", str(node.ipv4)))
        # The reverse path of a client's address is the default route, never the tunnel; the kernel takes the greater of
        # "all" and the device (Documentation/networking/ip-sysctl.rst).
        found += [Sysctl(f"net.ipv4.conf.{name}.rp_filter", "0") for name in ("all", TUNNEL4)]
    if node.ipv6 and any(vip.version == 6 for vip in wanted):
        found.append(Link(TUNNEL6, "ip6tnl", str(node.ipv6)))
    return tuple(found)
