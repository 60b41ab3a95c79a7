"""What a cluster file says against itself about who announces what to whom."""

import pytest

from lbnode.config.advice import advice
from lbnode.config.load import parse
from lbnode.errors import ConfigError

GOOD = """\
bgp:
  local_asn: 65001
  announceable: [198.51.100.0/24, 2001:db8:5::/48]
  peers:
    r1: {address: 192.0.2.1, asn: 65000}
    r2: {address: 192.0.2.2, asn: 65001, nodes: [s1, s2]}
    r6: {address: "2001:db8::1", asn: 65000}
nodes:
  s1: {role: backend, ipv4: 192.0.2.11, ipv6: "2001:db8::11"}
  s2: {role: backend, ipv4: 192.0.2.12, ipv6: "2001:db8::12"}
  s3: {role: backend, ipv4: 192.0.2.13, ipv6: "2001:db8::13"}
pools:
  web: {nodes: [s1, s2]}
  rest: {nodes: [s2, s3]}
services:
  www: {vips: [198.51.100.1, "2001:db8:5::1"], pool: web, through: backend, announce: backend}
"""
SHOP = "  shop: {{vips: [198.51.100.1], ports: [81], pool: {}, through: backend{}}}\n"
ATTRIBUTES = "announce: backend, attributes: {"


def problems(*pairs):
    """The text with pieces replaced (of nothing: added), and what is wrong with it."""
    text = GOOD
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1) if old else text + new
    try:
        parse(text, "")
    except ConfigError as error:
        return text, error.problems
    return text, []


def warned(*pairs):
    text = GOOD
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return advice(parse(text))


NO_EFFECT = "has no effect on a service that its backends announce: no L4 node sees its packets"
NAMED = "graceful-shutdown, blackhole, no-export, no-advertise, no-export-subconfed, no-peer"
COMMUNITY = f"write two numbers up to 65535, as 65001:100, or one of {NAMED}"
R2, R6 = "nodes: [s1, s2]}\n    r6", "\n    r6"


@pytest.mark.parametrize(
    ("pairs", "place", "message", "hint"),
    [
        # Guards.
        (
            [("198.51.100.0/24", "198.51.101.0/24")],
            "198.51.100.1",
            "VIP 198.51.100.1 must not be announced: it is in no network of bgp.announceable",
            "add 198.51.100.1/32, or a network around it, to announceable",
        ),
        (
            [("198.51.100.0/24", "198.51.100.1/24")],
            "198.51.100.1/24",
            "'198.51.100.1/24' is not a network",
            "write 198.51.100.0/24",
        ),
        (
            [("2001:db8:5::/48]", "2001:db8:5::/48, 198.51.100.0/24]")],
            "198.51.100.0/24]",
            "network 198.51.100.0/24 is listed twice, line 3",
            "remove one",
        ),
        # Numbers.
        ([("asn: 65000}", "asn: 0}")], "0}", "asn 0 is not between 1 and 4294967295", ""),
        ([("asn: 65000}", "asn: 65000, hold_time_s: 2}")], "2}", "hold_time_s 2 is not between 3 and 65535", ""),
        # Who speaks with whom.
        ([(R2, f"nodes: [s1, s22]}}{R6}")], "s22", "there is no node 's22'", "did you mean 's2'?"),
        ([(R2, f"nodes: [s2, s1, s1]}}{R6}")], "s1]", "node 's1' is listed twice, line 6", "remove one"),
        (
            [(R2, f"nodes: [s1, s2, s3]}}{R6}")],
            "s3]",
            "node 's3' announces nothing, so it speaks with no peer",
            "take it out",
        ),
        (
            [("asn: 65000}\n    r2", "asn: 65000, nodes: [s1]}\n    r2"), (R2, f"nodes: [s1]}}{R6}")],
            "s2: {role",
            "node 's2' is to announce VIP 198.51.100.1, but speaks with no IPv4 peer",
            "add it to the nodes of 'r1', 'r2'",
        ),
        (
            [("    r6", "    r3: {address: 192.0.2.3, asn: 65000, local_address: 192.0.2.99}\n    r6")],
            "192.0.2.99",
            "local_address 192.0.2.99 can only be that of one node, and several speak with BGP peer 'r3'",
            "say which under nodes, and describe the peer once more for the others",
        ),
        (
            [("asn: 65001, " + R2, f'asn: 65001, local_address: "2001:db8::99", nodes: [s1, s2]}}{R6}')],
            '"2001:db8::99"',
            "local_address 2001:db8::99 is not of the family of peer 192.0.2.2",
            "",
        ),
        (
            [("asn: 65000}", "asn: 65000, multihop: 3, ttl_security: 3}")],
            "multihop",
            "'multihop' has no effect with 'ttl_security', which sends every packet with the highest TTL",
            "leave it out",
        ),
        (
            [("asn: 65000}", "asn: 65000, password_file: secret}")],
            "secret",
            "'secret' is not a path of a file",
            "write an absolute path of letters, digits and . _ @ % + = - such as /etc/lb/tls/www.pem",
        ),
        # Attributes.
        (
            [("asn: 65000}", 'asn: 65000, attributes: {next_hop: "2001:db8::9"}}')],
            '"2001:db8::9"',
            "next_hop 2001:db8::9 is not of the family of peer 192.0.2.1",
            "a peer is told of VIPs of its own family alone",
        ),
        (
            [("announce: backend", ATTRIBUTES + "next_hop: 198.51.100.1}")],
            "198.51.100.1}",
            "next_hop 198.51.100.1 is a VIP",
            "use an address that routers can reach without BGP",
        ),
        (
            [("announce: backend", ATTRIBUTES + "next_hop: 127.0.0.1}")],
            "127.0.0.1",
            "127.0.0.1 is a loopback address, which cannot be a next hop",
            "",
        ),
        (
            [(', "2001:db8:5::1"', ""), ("announce: backend", ATTRIBUTES + 'next_hop: "2001:db8::9"}')],
            '"2001:db8::9"',
            "next_hop 2001:db8::9 has no effect: service 'www' has no IPv6 VIP",
            "leave it out",
        ),
        (
            [("announce: backend", ATTRIBUTES + "communities: [nonsense]}")],
            "nonsense",
            "'nonsense' is not a community",
            COMMUNITY,
        ),
        (
            [("announce: backend", ATTRIBUTES + 'communities: ["1:70000"]}')],
            '"1:70000"',
            "'1:70000' is not a community",
            COMMUNITY,
        ),
        (
            [("announce: backend", ATTRIBUTES + 'communities: ["1:2:3"]}')],
            '"1:2:3"',
            "'1:2:3' is a large community",
            "write it under large_communities",
        ),
        (
            [("announce: backend", ATTRIBUTES + 'large_communities: ["1:2"]}')],
            '"1:2"',
            "'1:2' is not a large community",
            "write three numbers up to 4294967295, as 65001:1:2",
        ),
        ([("announce: backend", ATTRIBUTES + "prepend: 17}")], "17}", "prepend 17 is not between 0 and 16", ""),
        ([("announce: backend", ATTRIBUTES + "med: -1}")], "-1", "med -1 is not between 0 and 4294967295", ""),
        (
            [("announce: backend", ATTRIBUTES + 'communities: [no-export, "65535:65281"]}')],
            '"65535:65281"',
            "community 65535:65281 is listed twice, line 16",
            "remove one",
        ),
        (
            [("s3: {role: backend,", "s3: {role: backend, attributes: {med: 1},")],
            "attributes",
            "'attributes' has no effect on node 's3', which announces nothing",
            "leave it out",
        ),
        # VIPs that several services share.
        (
            [("", SHOP.format("rest", ", announce: backend"))],
            "198.51.100.1], ports",
            "VIP 198.51.100.1 is announced by other nodes for service 'www'; routers do not look at ports, line 16",
            "give both the same nodes, or another VIP",
        ),
        (
            [
                ("  s3: {role: backend", "  s3: {role: l4"),
                ("  rest: {nodes: [s2, s3]}\n", ""),
                ("", SHOP.format("web", "")),
            ],
            "198.51.100.1], ports",
            "VIP 198.51.100.1 is announced for service 'www' with announce: backend, line 15",
            "use the same for both, or another VIP",
        ),
        (
            [
                ("announce: backend", ATTRIBUTES + "med: 1}"),
                ("", SHOP.format("web", ", announce: backend, attributes: {med: 2}")),
            ],
            "2}",
            "VIP 198.51.100.1 is announced once, and service 'www' has med 1, line 16",
            "use the same for both",
        ),
        # Services that their backends announce.
        *(
            (
                [("announce: backend", f"announce: backend, {key}: {value}")],
                f"{key}: {value}",
                f"'{key}' {NO_EFFECT}",
                "leave it out, or set announce: l4",
            )
            for key, value in (("quorum", "1"), ("ipvs", "{scheduler: rr}"), ("access", "{syn_per_s: 9}"))
        ),
    ],
)
def test_each_contradiction_is_told_once_and_at_its_place(pairs, place, message, hint):
    text, found = problems(*pairs)
    assert [(problem.message, problem.hint) for problem in found] == [(message, hint)]
    line = text.splitlines()[found[0].line - 1]
    assert line[found[0].column - 1 :].startswith(place)


def test_a_good_file_is_good():
    assert problems() == (GOOD, [])


def test_a_backend_announces_only_what_it_answers_itself():
    _, found = problems(("through: backend, ", ""))
    message = "a backend can only announce what it answers itself, not a service that goes through: l7"
    assert message in [problem.message for problem in found]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("asn: 65000}", "asn: 23456}")], "BGP peer 'r1': asn 23456 is reserved (RFC 6793): peers may refuse it"),
        (
            [("198.51.100.0/24", "0.0.0.0/0")],
            "announceable holds 0.0.0.0/0, which is everything: it guards against nothing",
        ),
        (
            [("announce: backend", ATTRIBUTES + 'communities: ["0:5"]}')],
            "service 'www': community 0:5 is reserved (RFC 1997): routers may give it a meaning of their own",
        ),
        (
            [("announce: backend", ATTRIBUTES + "communities: [blackhole]}")],
            "service 'www': community 65535:666: routers that honour it drop every packet",
        ),
        (
            [("announce: backend", ATTRIBUTES + 'large_communities: ["0:1:2"]}')],
            "service 'www': large community 0:1:2 begins with a reserved AS number (RFC 8092)",
        ),
        (
            [("asn: 65000}", "asn: 65000, attributes: {local_preference: 50}}")],
            "BGP peer 'r1': local_preference is told to iBGP peers alone",
        ),
        (
            [("nodes: [s1, s2]}\n    r6", "nodes: [s1, s2], attributes: {prepend: 2}}\n    r6")],
            "BGP peer 'r2': prepend is left out for iBGP peers, who would take the path for a loop",
        ),
        (
            [
                ("asn: 65001,", "asn: 65000,"),
                ("s2: {role: backend", "s2: {role: backend, attributes: {local_preference: 5}"),
            ],
            "node 's2': local_preference is told to iBGP peers alone, and there is no other",
        ),
        (
            [
                (', "2001:db8:5::1"', ""),
                (', ipv6: "2001:db8::11"', ""),
                (', ipv6: "2001:db8::12"', ""),
            ],
            "BGP peer 'r6' has no node: none that announces has an IPv6 address",
        ),
        (
            [("web: {nodes: [s1, s2]}", "web: {nodes: [s1]}"), ("nodes: [s1, s2]}\n    r6", "nodes: [s1]}\n    r6")],
            "one node announces 'www': without it, that is away",
        ),
    ],
)
def test_what_is_seldom_meant_is_warned_of(pairs, expected):
    assert expected in warned(*pairs)


def test_the_good_file_has_nothing_to_warn_of_but_the_single_peer_of_a_family():
    assert warned() == ("there is one BGP peer for IPv6, 'r6': without it, those VIPs are away",)
