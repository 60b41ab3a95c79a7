"""Who announces which VIP to whom, and with which attributes."""

from lbnode.config.load import parse
from lbnode.health.state import Health
from lbnode.maintenance.state import parse as admin
from lbnode.node import Identity, groundwork, wanted_probes
from lbnode.paths import Paths
from lbnode.resources import Address, Announcement, File, Link, Running, Sysctl, VirtualService
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.own_check import own_checks
from lbnode.templates import load

TEXT = """
bgp:
  local_asn: 65001
  attributes: {communities: ["65001:1", no-export], med: 5, next_hop: 192.0.2.200}
  peers:
    r1: {address: 192.0.2.129, asn: 65000, attributes: {prepend: 2, med: 6}}
    r2: {address: 192.0.2.130, asn: 65001, nodes: [s1], attributes: {local_preference: 200}}
    r6: {address: "2001:db8::1", asn: 65000}
nodes:
  s1: {role: backend, ipv4: 192.0.2.11, ipv6: "2001:db8::11", attributes: {local_preference: 50}}
  s2: {role: backend, ipv4: 192.0.2.12, ipv6: "2001:db8::12"}
pools:
  web: {port: 8080, check: {path: /health}}
services:
  www:
    vips: [198.51.100.1, "2001:db8:5::1"]
    pool: web
    through: backend
    announce: backend
    attributes: {communities: ["65001:2", "65001:1"], large_communities: ["65001:1:2"]}
"""
CLUSTER = parse(TEXT)
CHECK4, CHECK6 = (check.probe for check in own_checks(CLUSTER, "s1"))
UP = {CHECK4: Health(True), CHECK6: Health(True)}


def wanted(name="s1", **options):
    return desired("backend", Inputs(CLUSTER, name, templates=load(), **options))


def announced(name="s1", **options):
    return [row for row in wanted(name, **options).rows if isinstance(row, Announcement)]


def test_the_most_specific_value_counts_and_lists_add_up():
    communities = ("65001:1", "65535:65281", "65001:2")
    more = {"communities": communities, "large_communities": ("65001:1:2",)}
    assert announced(health=UP) == [
        Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.200", med=6, prepend=2, **more),
        Announcement("198.51.100.1/32", "192.0.2.130", "192.0.2.200", med=5, local_preference=50, **more),
        Announcement("2001:db8:5::1/128", "2001:db8::1", "2001:db8::11", med=5, **more),
    ]


def test_a_node_speaks_only_with_the_peers_that_are_meant_for_it():
    health = {check.probe: Health(True) for check in own_checks(CLUSTER, "s2")}
    assert [row.peer for row in announced("s2", health=health)] == ["192.0.2.129", "2001:db8::1"]
    file = next(row for row in wanted("s2").rows if isinstance(row, File) and row.checker == "exabgp")
    assert "neighbor 192.0.2.130" not in file.content


def test_the_vips_stand_on_the_node_before_anything_is_known():
    rows = groundwork(Identity("s1", "backend", Paths()), CLUSTER).rows
    assert set(rows) == {
        Sysctl("net.ipv4.conf.all.arp_ignore", "1"),
        Sysctl("net.ipv4.conf.all.arp_announce", "2"),
        Link("lb-vip", "dummy"),
        Address("198.51.100.1", "lb-vip"),
        Address("2001:db8:5::1", "lb-vip"),
    }
    assert set(rows) < set(wanted().rows)
    assert not [row for row in wanted().rows if isinstance(row, VirtualService)]


def test_it_asks_at_the_vips_themselves():
    assert [(probe.kind, probe.address, probe.port, probe.path) for probe in (CHECK4, CHECK6)] == [
        ("http", "198.51.100.1", 8080, "/health"),
        ("http", "2001:db8:5::1", 8080, "/health"),
    ]
    assert wanted_probes(Identity("s1", "backend", Paths()), CLUSTER) == (CHECK4, CHECK6)


def test_a_vip_whose_check_fails_is_withdrawn_alone():
    health = UP | {CHECK4: Health(False, "HTTP 503")}
    assert [row.prefix for row in announced(health=health)] == ["2001:db8:5::1/128"]
    vip = next(verdict for verdict in wanted(health=health).verdicts if verdict.kind == "vip")
    assert (vip.state, vip.reason) == ("withdrawn", "www is down: HTTP 503")


def test_what_is_not_known_yet_changes_nothing():
    assert announced() == []
    assert [row.prefix for row in announced(announced=frozenset(["198.51.100.1"]))] == ["198.51.100.1/32"] * 2


def test_a_node_that_is_not_ready_announces_nothing():
    for word in ("drain", "maint"):
        assert announced(health=UP, admin=admin(word)) == []
    assert len(announced(health=UP, admin=admin("50%"))) == 3


def test_backends_that_announce_nothing_have_no_speaker():
    cluster = parse(TEXT.replace("web: {", "web: {nodes: [s1], "))
    found = desired("backend", Inputs(cluster, "s2", templates=load()))
    assert not [row for row in found.rows if isinstance(row, File | Running | Address)]
