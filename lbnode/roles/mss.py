"""How much TCP payload fits into one packet on the way from an L4 node to a real server, inside the tunnel. PURE.

Clients send full packets; IPVS puts another header around them. A client that is told a smaller MSS in the SYN-ACK
leaves room for it, and nobody has to fragment or to send an ICMP error. The L4 nodes never see the SYN-ACK, so it is
the real servers that say it: HAProxy on its binds, backends by our nftables table.

The sums are those of net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt().
"""

from collections.abc import Iterable
from typing import Literal

from lbnode.config.model import Balancing, Cluster, IPAddress, Service

IP_HEADER = {4: 20, 6: 40}
TCP_HEADER, UDP_HEADER = 20, 8
GUE_HEADER, GUE_REMOTE_CHECKSUM = 4, 8  # GUE_LEN_PRIV + GUE_PLEN_REMCSUM (include/net/gue.h)
GRE_HEADER, GRE_CHECKSUM = 4, 4  # gre_calc_hlen() (include/net/gre.h)


def overhead(ipvs: Balancing, version: int) -> int:
    """Bytes around each packet of a family (4 or 6); 0 when it is not tunnelled."""
    if ipvs.forwarding != "tunnel":
        return 0
    extra = 0
    if ipvs.tunnel == "gue":
        extra = UDP_HEADER + GUE_HEADER + GUE_REMOTE_CHECKSUM * (ipvs.tunnel_checksum == "remote")
    elif ipvs.tunnel == "gre":
        extra = GRE_HEADER + GRE_CHECKSUM * (ipvs.tunnel_checksum == "full")
    return IP_HEADER[version] + extra


def mss(cluster: Cluster, service: Service, version: int) -> int | None:
    """The largest MSS that clients of a service may be told, bytes; None when the cluster file wants no clamp."""
    if not cluster.tunnel.clamp_mss:
        return None
    return cluster.tunnel.mtu - overhead(service.ipvs, version) - IP_HEADER[version] - TCP_HEADER


def mss_of_vip(cluster: Cluster, vip: IPAddress, through: Literal["l7", "backend"]) -> int | None:
    """The same for all services that share a VIP and its real servers; None as above, or when there are none."""
    return _least(
        mss(cluster, service, vip.version)
        for service in cluster.balanced.values()
        if service.through == through and vip in service.vips
    )


def by_vip(cluster: Cluster, through: Literal["l7", "backend"]) -> dict[IPAddress, int | None]:
    """As `mss_of_vip`, for every VIP of such services at once."""
    found: dict[IPAddress, list[int | None]] = {}
    for service in cluster.balanced.values():
        if service.through == through:
            for vip in service.vips:
                found.setdefault(vip, []).append(mss(cluster, service, vip.version))
    return {vip: _least(values) for vip, values in found.items()}


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)
