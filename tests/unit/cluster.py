"""The small three-tier cluster that many tests begin with."""

from lbnode.config.load import parse

TEXT = """
bgp:
  local_asn: 65001
  peers:
    r1: {address: 192.0.2.129, asn: 65000}
    r1-6: {address: "2001:db8:c000:280::1", asn: 65000}
nodes:
  l4-1: {role: l4, ipv4: 192.0.2.137, ipv6: "2001:db8:c000:280::137"}
  l4-2: {role: l4, ipv4: 192.0.2.138, ipv6: "2001:db8:c000:280::138"}
  l7-1: {role: l7, ipv4: 192.0.2.193, ipv6: "2001:db8:c000:280::193"}
  l7-2: {role: l7, ipv4: 192.0.2.194, ipv6: "2001:db8:c000:280::194"}
  s1: {role: backend, ipv6: "2001:db8:c000:280::e1"}
  s2: {role: backend, ipv6: "2001:db8:c000:280::e2"}
pools:
  web: {port: 80, check: {path: /health}}
services:
  www: {vips: [198.51.100.1, "2001:db8:c633:6401::1"], ports: [80, 443], pool: web}
  direct: {vips: ["2001:db8:c633:6401::4"], pool: web, through: backend}
"""


def small(old: str = "", new: str = ""):
    """The cluster, with one piece of its text replaced."""
    assert old in TEXT
    return parse(TEXT.replace(old, new) if old else TEXT, "cluster.yaml")
