"""The MSS that leaves room for the tunnel, by the sums of the kernel's ip_vs_xmit.c; who listens for its errors."""

import pytest

from lbnode.config.model import Balancing, Cluster
from lbnode.resources import FouPort, Link, Sysctl
from lbnode.roles.mss import mss, mss_of_vip, overhead
from lbnode.roles.too_big import listeners

VIP4, VIP6 = "198.51.100.1", "2001:db8:5::1"
OWN = "2001:db8::141"


def cluster(tunnel: object = None, **services: object) -> Cluster:
    return Cluster.model_validate(
        {
            "bgp": {"local_asn": 64512, "peers": {"router": {"address": "192.0.2.1", "asn": 64511}}},
            "nodes": {"l4": {"role": "l4", "ipv4": "192.0.2.141", "ipv6": OWN}},
            "services": {
                name: {"vips": [VIP4, VIP6], "pool": "apps", **(changes if isinstance(changes, dict) else {})}
                for name, changes in services.items()
            },
            "pools": {"apps": {}},
            "tunnel": tunnel or {},
        }
    )


@pytest.mark.parametrize(
    ("balancing", "outer4", "outer6"),
    [
        ({}, 20, 40),
        ({"tunnel": "gre"}, 24, 44),
        ({"tunnel": "gre", "tunnel_checksum": "full"}, 28, 48),
        ({"tunnel": "gue"}, 32, 52),
        ({"tunnel": "gue", "tunnel_checksum": "full"}, 32, 52),
        ({"tunnel": "gue", "tunnel_checksum": "remote"}, 40, 60),
        ({"forwarding": "route"}, 0, 0),
        ({"forwarding": "masquerade", "tunnel": "gre"}, 0, 0),
    ],
)
def test_what_a_tunnel_adds(balancing: dict[str, object], outer4: int, outer6: int) -> None:
    made = Balancing.model_validate(balancing)
    assert (overhead(made, 4), overhead(made, 6)) == (outer4, outer6)
    whole = cluster(www={"ipvs": balancing})
    service = whole.services["www"]
    assert (mss(whole, service, 4), mss(whole, service, 6)) == (1500 - outer4 - 40, 1500 - outer6 - 60)


def test_services_that_share_a_vip_tell_the_least() -> None:
    whole = cluster(
        {"mtu": 1400},
        web={},
        dns={"ipvs": {"tunnel": "gue"}, "ports": [53]},
        own={"ipvs": {"tunnel": "gre"}, "through": "backend", "ports": [99]},
    )
    four, six = whole.services["web"].vips
    assert (mss_of_vip(whole, four, "l7"), mss_of_vip(whole, six, "l7")) == (1328, 1288)
    assert mss_of_vip(whole, four, "backend") == 1336
    other = cluster(web={}).services["web"].vips[0] + 1
    assert mss_of_vip(whole, other, "l7") is None


def test_without_a_clamp_nothing_is_told() -> None:
    whole = cluster({"clamp_mss": False}, web={})
    assert mss_of_vip(whole, whole.services["web"].vips[0], "l7") is None


def test_an_l4_node_listens_for_errors_about_each_kind_of_ipv6_tunnel() -> None:
    def heard(**services: object) -> tuple[object, ...]:
        whole = cluster(**services)
        return listeners(whole.nodes["l4"], whole.services.values())

    ip6 = (
        Link("lb-ip6", "ip6tnl", OWN),
        Sysctl("net.ipv6.conf.lb-ip6.disable_ipv6", "1"),
        Sysctl("net.ipv4.conf.lb-ip6.forwarding", "0"),
    )
    assert heard(a={}, b={}) == ip6
    assert heard(a={"ipvs": {"tunnel": "gue"}}) == (*ip6, FouPort(6, 6080))
    assert heard(a={"ipvs": {"tunnel": "gre"}})[0] == Link("lb-gre6", "ip6gre", OWN)
    assert heard(a={"vips": [VIP4]}) == heard(a={"ipvs": {"forwarding": "route"}}) == ()
