"""What a cluster file says against itself: each contradiction at its place, once, beside all other mistakes."""

import pytest
from test_config_structure import GOOD, changed, problems

ANOTHER = "  shop: {{vips: [{}], pool: web}}\npools:"
FAMILY = "its packets keep its family all the way"
OWN = "a VIP needs an address of its own"
BOTH = "the agent-check and the health URI both listen on port"
EITHER = "give the L7 nodes or the backends the other family"
THROUGH = "on a service that goes through: backend (leave it out, or set through: l7)"
SLOTS = "and a Maglev table has 4093 slots (split it, or use fewer and stronger servers)"
UNEVEN = "real servers of service 'www' would get no flow (use weights with a large common divisor, such as 50 and 100)"
BY_UDP = "  {}: {{vips: ['2001:db8:2::1'], protocol: udp, pool: web, through: backend}}\n"
NO_L4 = "no node has role l4 to take the services' packets (add a node with role: l4)"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        # VIPs and ports.
        (
            [("pools:", ANOTHER.format("198.51.100.1"))],
            ["16:17: VIP 198.51.100.1 port 80 already belongs to service 'www', line 14"],
        ),
        (
            [
                ("pool: web", "pool: web\n    ports: [80, 443]"),
                ("pools:", "  shop: {vips: [198.51.100.1], ports: [443, 80], pool: web}\npools:"),
            ],
            ["17:17: VIP 198.51.100.1 port 443, 80 already belongs to service 'www', line 14"],
        ),
        ([("pools:", "  shop: {vips: [198.51.100.1], ports: [443], pool: web}\npools:")], []),
        (  # what goes by UDP is another service, on the same port too
            [("pools:", f"{BY_UDP.format('dns')}pools:")],
            [],
        ),
        (
            [("pools:", f"{BY_UDP.format('dns')}{BY_UDP.format('names')}pools:")],
            ["17:18: VIP 2001:db8:2::1 port 80 already belongs to service 'dns', line 16"],
        ),
        ([("[198", "[198.51.100.1, 198")], ["14:26: VIP 198.51.100.1 is listed twice, line 14 (remove one)"]),
        (
            [("2001:db8:2::1]", "2001:db8:2::1, 2001:DB8:2:0::1]")],
            ["14:41: VIP 2001:db8:2::1 is listed twice, line 14 (remove one)"],
        ),
        ([("pool: web", "pool: web\n    ports: [80, 80]")], ["16:17: port 80 is listed twice, line 16 (remove one)"]),
        (
            [("pool: web", "pool: web\n    ports: [5580, 5555]")],
            ["16:13: port 5580 is the health URI's on VIPs through l7 (choose another one for health)"],
        ),
        # Pools.
        ([("pool: web", "pool: wbe")], ["15:11: there is no pool 'wbe' (did you mean 'web'?)"]),
        ([("pool: web", "pool: mail")], ["15:11: there is no pool 'mail' (define it under pools)"]),
        ([("check: {path: /health}", "nodes: [s1, s3]")], ["18:17: there is no node 's3' (add it under nodes)"]),
        (
            [("s2:", "mail-2:"), ("check: {path: /health}", "nodes: [s1, mail2]")],
            ["18:17: there is no node 'mail2' (did you mean 'mail-2'?)"],
        ),
        (
            [("check: {path: /health}", "nodes: [s1, l7-1]")],
            ["18:17: node 'l7-1' is an l7 node, not a backend (a pool holds backends)"],
        ),
        ([("check: {path: /health}", "nodes: [s1, s1]")], ["18:17: node 's1' is listed twice, line 18 (remove one)"]),
        (
            [
                ("  s1: {role: backend, ipv6: 2001:db8:1::171}\n", ""),
                ("  s2: {role: backend, ipv6: 2001:db8:1::172}\n", ""),
            ],
            ["15:3: pool 'web' has no node (add a node with role: backend)"],
        ),
        # Tiers.
        ([("role: l4", "role: l7"), ("role: l4", "role: l7")], [f"12:1: {NO_L4}"]),
        (
            [("role: l7", "role: l4")],
            ["13:3: no node has role l7, which 'www' needs (add a node with role: l7, or set through: backend)"],
        ),
        (
            [("pool: web", "pool: web\n    quorum: 2")],
            ["16:13: quorum 2 is more than service 'www' has real servers (use at most 1)"],
        ),
        (
            [("198.51.100.1, ", ""), ("pool: web", "pool: web\n    through: backend\n    quorum: 3")],
            ["17:13: quorum 3 is more than service 'www' has real servers (use at most 2)"],
        ),
        (
            [
                ("198.51.100.1, ", ""),
                ("pool: web", "pool: web\n    through: backend\n    mode: tcp\n    balance: source"),
            ],
            [
                f"17:5: 'mode' has no effect {THROUGH}",
                f"18:5: 'balance' has no effect {THROUGH}",
            ],
        ),
        (
            [("pools:", "agent_check: {port: 5580}\npools:")],
            [f"16:21: {BOTH} 5580 of the L7 nodes (choose another port for one of them)"],
        ),
        (
            [("pools:", "health: {port: 5555}\npools:")],
            [f"16:16: {BOTH} 5555 of the L7 nodes (choose another port for one of them)"],
        ),
        ([("pools:", "probe: {interval_s: 0.5, timeout_s: 2}\npools:")], []),
        # Addresses used twice.
        ([("192.0.2.142", "192.0.2.141")], ["8:26: 192.0.2.141 is already the address of node 'l4-1', line 7"]),
        (
            [("2001:db8:1::172", "2001:db8:1::129")],
            ["5:22: 2001:db8:1::129 is already the address of node 's2', line 11"],
        ),
        (
            [("r1-v6:", "r2: {address: 192.0.2.129, asn: 1}\n    r1-v6:")],
            ["5:19: 192.0.2.129 is already the address of BGP peer 'r1', line 4"],
        ),
        (
            [("[198.51.100.1,", "[192.0.2.151,")],
            [f"14:12: 192.0.2.151 is already the address of node 'l7-1', line 9 ({OWN})"],
        ),
        (
            [("[198.51.100.1,", "[192.0.2.129,")],
            [f"14:12: 192.0.2.129 is already the address of BGP peer 'r1', line 4 ({OWN})"],
        ),
        # Addresses unfit for their use.
        ([("198.51.100.1", "127.0.0.1")], ["14:12: 127.0.0.1 is a loopback address, which cannot be a VIP"]),
        ([("198.51.100.1", "224.0.0.1")], ["14:12: 224.0.0.1 is a multicast address, which cannot be a VIP"]),
        ([("198.51.100.1", "0.0.0.0")], ["14:12: 0.0.0.0 is an unspecified address, which cannot be a VIP"]),  # noqa: S104
        ([("198.51.100.1", "0.1.2.3")], ["14:12: 0.1.2.3 is a reserved address, which cannot be a VIP"]),
        ([("198.51.100.1", "169.254.1.1")], ["14:12: 169.254.1.1 is a link-local address, which cannot be a VIP"]),
        (
            [("198.51.100.1", "255.255.255.255")],
            ["14:12: 255.255.255.255 is a reserved address, which cannot be a VIP"],
        ),
        ([("2001:db8:2::1]", "fe80::1]")], ["14:26: fe80::1 is a link-local address, which cannot be a VIP"]),
        ([("2001:db8:2::1]", "'::1']")], ["14:26: ::1 is a loopback address, which cannot be a VIP"]),
        ([("2001:db8:2::1]", "ff02::1]")], ["14:26: ff02::1 is a multicast address, which cannot be a VIP"]),
        (
            [("2001:db8:2::1]", "'::ffff:192.0.2.1']")],
            ["14:26: ::ffff:c000:201 is an IPv4-mapped address, which cannot be a VIP"],
        ),
        (
            [("2001:db8:1::171", "fe80::1")],
            ["10:29: fe80::1 is a link-local address, which cannot be a node's address"],
        ),
        (
            [("192.0.2.129", "224.0.0.9")],
            ["4:19: 224.0.0.9 is a multicast address, which cannot be a BGP peer's address"],
        ),
        # Families.
        ([(", ipv6: 2001:db8:1::172", "")], ["11:3: node 's2' has no address (give it ipv4 or ipv6)"]),
        (
            [("ipv4: 192.0.2.142, ", "")],
            ["8:3: node 'l4-2' has no IPv4 address, which VIP 198.51.100.1 of service 'www' needs (add ipv4)"],
        ),
        (
            [("ipv4: 192.0.2.151, ", "")],
            [f"14:12: VIP 198.51.100.1 cannot work: no L7 node has an IPv4 address ({FAMILY})"],
        ),
        (
            [("ipv4: 192.0.2.141, ", ""), ("ipv4: 192.0.2.142, ", "")],
            [f"14:12: VIP 198.51.100.1 cannot work: no L4 node has an IPv4 address ({FAMILY})"],
        ),
        (
            [("    r1-v6: {address: 2001:db8:1::129, asn: 64500}\n", "")],
            [f"13:26: VIP 2001:db8:2::1 cannot work: no BGP peer has an IPv6 address ({FAMILY})"],
        ),
        (
            [("pool: web", "pool: web\n    through: backend")],
            [f"14:12: VIP 198.51.100.1 cannot work: no node of pool 'web' has an IPv4 address ({FAMILY})"],
        ),
        (
            [("pool: web", "pool: web\n    through: backend"), ("s1: {", "s1: {ipv4: 192.0.2.171, ")],
            ["11:3: node 's2' has no IPv4 address, which VIP 198.51.100.1 of service 'www' needs (add ipv4)"],
        ),
        # One mistake, though both a VIP and the backends need the address.
        (
            [(", ipv6: 2001:db8:1::151", "")],
            [f"14:26: VIP 2001:db8:2::1 cannot work: no L7 node has an IPv6 address ({FAMILY})"],
        ),
        (
            [(", ipv6: 2001:db8:1::151", ""), (", 2001:db8:2::1", "")],
            [f"17:3: no L7 node can reach pool 'web': they have no family in common ({EITHER})"],
        ),
        (
            [(", 2001:db8:2::1", ""), ("  s1:", "  l7-2: {role: l7, ipv4: 192.0.2.152}\n  s1:")],
            ["10:3: node 'l7-2' has no IPv6 address and cannot reach backend 's1', 's2' (add ipv6)"],
        ),
        (
            [("198.51.100.1, ", ""), ("ipv4: 192.0.2.151, ", ""), ("ipv6: 2001:db8:1::172", "ipv4: 192.0.2.172")],
            ["11:3: node 's2' has no IPv6 address and cannot reach L7 node 'l7-1' (add ipv6)"],
        ),
    ],
)
def test_contradictions(pairs: list[tuple[str, str]], expected: list[str]):
    assert problems(changed(*pairs)) == expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        # A wrong role: the node may be an L7 node or a backend for all we know.
        ([("role: l7", "role: l77")], ["9:16: role 'l77' is not one of l4, l7, backend (did you mean 'l7'?)"]),
        (
            [("role: l4", "role: x"), ("role: l4", "role: x")],
            [f"{line}:16: role 'x' is not one of l4, l7, backend" for line in (7, 8)],
        ),
        # A wrong address or key: the node does not lack what was meant to be there.
        ([("ipv6: 2001:db8:1::171", "ipv6: 2001:db8")], ["10:29: '2001:db8' is not an IP address"]),
        ([("ipv6: 2001:db8:1::171", "ip6: 2001:db8:1::171")], ["10:23: unknown key 'ip6' (did you mean 'ipv6'?)"]),
        ([("address: 2001:db8:1::129", "address: 2001")], ["5:22: '2001' is not an IP address"]),
        # A wrong pool, a wrong name of the section, a node named twice.
        ([("check: {path: /health}", "nodes: s1")], ["18:12: 'nodes' must be a list, not 's1' (write [s1])"]),
        (
            [("pools:\n  web:\n    check: {path: /health}", "pools: web")],
            ["16:8: 'pools' must be a mapping, not 'web' (its keys: names)"],
        ),
        ([("nodes:", "node:")], ["6:1: unknown key 'node' (did you mean 'nodes'?)"]),
        (
            [("s2:", "s1:"), ("check: {path: /health}", "nodes: [s1, s2]")],
            ["11:3: node 's1' is named twice; first at line 10"],
        ),
        (
            [("pool: web", "pool: web\n    quorum: many")],
            ["16:13: quorum 'many' is not a whole number (use decimal digits, without a leading 0)"],
        ),
        (
            [("pool: web", "pool: web\n    ports: [80, x, 80]")],
            [
                "16:17: port 'x' is not a whole number (use decimal digits, without a leading 0)",
                "16:20: port 80 is listed twice, line 16 (remove one)",
            ],
        ),
    ],
)
def test_nothing_is_said_that_only_follows_from_a_reported_mistake(pairs: list[tuple[str, str]], expected: list[str]):
    assert problems(changed(*pairs)) == expected


def test_six_mistakes_six_problems():
    text = changed(
        ("r1: {address", "r1: {adress"),
        ("role: l7", "role: l8"),
        ("192.0.2.142", "192.0.2.141"),
        ("[198.51.100.1,", "[203.0.113,"),
        ("pool: web", "pool: wbe\n    ports: [99999]"),
    )
    assert problems(text) == [
        "4:10: unknown key 'adress' (did you mean 'address'?)",
        "8:26: 192.0.2.141 is already the address of node 'l4-1', line 7",
        "9:16: role 'l8' is not one of l4, l7, backend",
        "14:12: '203.0.113' is not an IP address",
        "15:11: there is no pool 'wbe' (did you mean 'web'?)",
        "16:13: port 99999 is not between 1 and 65535",
    ]


def test_a_cluster_without_services_needs_no_tiers():
    assert problems(GOOD[: GOOD.index("services:")]) == []


def test_ten_thousand_wrong_names_are_reported_in_order():
    names = [f"m{number:05}" for number in range(10_000)]
    found = problems(changed(("check: {path: /health}", f"nodes: [{', '.join(names)}]")))
    assert len(found) == len(names)
    assert all(f"'{name}'" in problem for name, problem in zip(names, found, strict=True))


def with_l7(count: int, odd: str = "") -> str:
    """The good file with that many L7 nodes, IPv4 only; `odd` goes into the second one."""
    nodes = [
        f"  n{number}: {{role: l7, ipv4: 10.1.{number >> 8}.{number & 255}, ipv6: '2001:db8:7::{number:x}'{mark}}}\n"
        for number, mark in ((number, odd if number == 2 else "") for number in range(1, count))
    ]
    return changed(("  s1:", "".join(nodes) + "  s1:"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (with_l7(4093), []),
        (with_l7(4094), [f"4106:3: service 'www' has 4094 real servers, {SLOTS}"]),
        (with_l7(82, ", weight: 99"), []),
        (with_l7(83, ", weight: 99"), [f"95:3: weights so uneven that 1 of the 83 {UNEVEN}"]),
        (with_l7(83, ", weight: 50"), []),
        (
            with_l7(83, ", weight: many"),
            ["11:65: weight 'many' is not a whole number (use decimal digits, without a leading 0)"],
        ),
    ],
    ids=["as many as slots", "more than slots", "enough for all", "too uneven", "even", "unknown"],
)
def test_every_real_server_must_find_a_slot(text: str, expected: list[str]):
    assert problems(text) == expected
