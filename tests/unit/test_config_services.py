"""What one service says against itself: each contradiction at its place, with its mend."""

import pytest
from test_config_structure import changed, problems

WWW = "  www:\n    vips: [198.51.100.1, 2001:db8:2::1]\n    pool: web"
DIRECT = WWW.replace("198.51.100.1, ", "") + "\n    through: backend"
"""The same through its IPv6 backends."""
ACROSS = "nodes:\n  l4-1: {role: l4"


def of_l7(lines: str) -> list[str]:
    """The problems of the good file with lines added to its service, at line 16."""
    return problems(changed(("pool: web", f"pool: web\n    {lines}")))


def direct(lines: str) -> list[str]:
    """The same of a service through the backends, at line 17."""
    return problems(changed((WWW, f"{DIRECT}\n    {lines}")))


TABLES = "each step would make its table anew, and as L4 nodes take the steps at different moments, their tables would"
NO_TCP = "cannot go through: l7, for HAProxy takes TCP alone (set through: backend)"
OWN_MARKS = "is one of those that lbnode's own probes carry (use another: not 27746, nor 1811939328 to 1828716543)"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("protocol: udp", [f"16:15: protocol udp {NO_TCP}"]),
        ("protocol: sctp", [f"16:15: protocol sctp {NO_TCP}"]),
        (
            "slow_start_s: 30",
            [
                (
                    f"16:19: slow_start_s cannot be used with scheduler mh: {TABLES} differ "
                    "(leave it out, or set ipvs: {scheduler: wlc})"
                )
            ],
        ),
        ("slow_start_s: 0", []),
        ("slow_start_s: 30\n    ipvs: {scheduler: wlc}", []),
        ("slow_start_s: 30\n    ipvs: {scheduler: nonsense}", ["17:23: scheduler 'nonsense' is not one of"]),
        (
            "slow_start_s: 30\n    ipvs: {schedular: wlc}",
            ["17:12: unknown key 'schedular' (did you mean 'scheduler'?)"],
        ),
        ("ipvs: {flags: []}", []),
        ("ipvs: {flags: [mh-fallback]}", []),
        (
            "ipvs: {flags: [sh-port, mh-port, mh-port]}",
            [
                "16:20: flag sh-port belongs to scheduler sh, not to mh (leave it out)",
                "16:38: flag mh-port is listed twice, line 16 (remove one)",
            ],
        ),
        (
            "ipvs: {scheduler: rr, flags: [mh-port]}",
            ["16:35: flag mh-port belongs to scheduler mh, not to rr (leave it out)"],
        ),
        ("ipvs: {one_packet: true}", ["16:12: 'one_packet' cannot be used with protocol tcp, which has flows (leave"]),
        (
            "ipvs: {persistence_ipv4_prefix: 24}",
            [
                (
                    "16:12: 'persistence_ipv4_prefix' has no effect without 'persistence_s' "
                    "(add persistence_s, or leave it out)"
                )
            ],
        ),
        ("ipvs: {persistence_ipv4_prefix: 24, persistence_s: 300}", []),
        (
            "ipvs: {persistence_ipv4_prefix: 24, persistence_s: many}",
            ["16:56: persistence_s 'many' is not a whole number (use decimal digits, without a leading 0)"],
        ),
        ("ipvs: {forwarding: masquerade}", ["16:24: forwarding masquerade cannot go through: l7, for HAProxy answers"]),
        (
            "ipvs: {forwarding: route, tunnel_port: 6080, tunnel: gue}",
            [
                "16:31: 'tunnel_port' has no effect with forwarding route (leave it out)",
                "16:50: 'tunnel' has no effect with forwarding route (leave it out)",
            ],
        ),
        (
            "ipvs: {tunnel_port: 6080}",
            ["16:12: 'tunnel_port' has no effect with tunnel ipip (leave it out, or set tunnel: gue)"],
        ),
        ("ipvs: {tunnel: gue, tunnel_port: 6081, tunnel_checksum: remote}", []),
        (
            "ipvs: {tunnel_checksum: none}",
            ["16:12: 'tunnel_checksum' has no effect with tunnel ipip (leave it out, or set tunnel: gue or gre)"],
        ),
        (
            "ipvs: {tunnel: gre, tunnel_checksum: remote}",
            ["16:42: checksum remote belongs to gue, not to gre (use full or none)"],
        ),
        (
            "ipvs: {max_connections: 100, resume_connections: 101}",
            ["16:54: resume_connections 101 is more than max_connections, 100 (use at most that, or leave it out)"],
        ),
        (
            "ipvs: {resume_connections: 10}",
            ["16:12: 'resume_connections' has no effect without 'max_connections' (add max_connections, or leave it"],
        ),
        ("ipvs: {max_connections: 100, resume_connections: 100}", []),
        ("ipvs: {mark: 27746}", [f"16:18: mark 27746 {OWN_MARKS}"]),
        ("ipvs: {mark: 1811939328}", [f"16:18: mark 1811939328 {OWN_MARKS}"]),
        ("ipvs: {mark: 1828716544}", []),
        ("quorum_high: 1", []),
        (
            "quorum_high: 2",
            ["16:18: quorum_high 2 is more than service 'www' has real servers (use at most 1)"],
        ),
        ("probe: {type: tcp, port: 8080}", []),
        (
            "probe: {path: /x, type: tcp}",
            ["16:13: 'path' has no effect on a probe of type tcp (leave it out, or set type: http or https)"],
        ),
        (
            "probe: {port: 80, verify: true}",
            [
                (
                    "16:13: 'port' has no effect on a probe of type health "
                    "(leave it out, or set type: tcp or http or https or script)"
                ),
                "16:23: 'verify' has no effect on a probe of type health (leave it out, or set type: https)",
            ],
        ),
        ("probe: {type: https, verify: true, host: www.example.org, body: fine, status: [200]}", []),
        (
            "probe: {type: script}",
            ["16:19: a probe of type script needs a script (add script: [/usr/local/lib/probe])"],
        ),
        (
            "probe: {type: script, script: [probe]}",
            ["16:36: 'probe' is not an absolute path (write it as /usr/local/lib/probe)"],
        ),
        ("probe: {type: script, script: [/usr/local/lib/probe], port: 80}", []),
        (
            "access: {allow: [203.0.113.0/24]}",
            ["16:21: nobody could reach VIP 2001:db8:2::1: no network of 'allow' is IPv6 (add one, or ['::/0'])"],
        ),
        (
            "access: {allow: ['2001:db8::/32']}",
            ["16:21: nobody could reach VIP 198.51.100.1: no network of 'allow' is IPv4 (add one, or ['0.0.0.0/0'])"],
        ),
        ("access: {allow: [203.0.113.0/24, '2001:db8::/32'], syn_per_s: 100, syn_burst: 10}", []),
        ("access: {allow: [203.0.113.1/24]}", ["16:22: '203.0.113.1/24' is not a network (write 203.0.113.0/24)"]),
        (
            "access: {syn_burst: 10}",
            ["16:14: 'syn_burst' has no effect without 'syn_per_s' (add syn_per_s, or leave it out)"],
        ),
    ],
)
def test_through_l7(lines: str, expected: list[str]):
    found = of_l7(lines)
    assert len(found) == len(expected), found
    assert all(text.startswith(want) for text, want in zip(found, expected, strict=True)), found


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("protocol: udp\n    ipvs: {one_packet: true, forwarding: masquerade}", []),
        (
            "protocol: udp\n    access: {syn_per_s: 5}",
            ["18:14: 'syn_per_s' has no effect on protocol udp (leave it out)"],
        ),
        (
            "quorum: 2\n    quorum_high: 1",
            ["18:18: quorum_high 1 is less than quorum, 2 (use at least that, or leave it out)"],
        ),
        ("quorum: 1\n    quorum_high: 2", []),
    ],
)
def test_through_the_backends(lines: str, expected: list[str]):
    assert direct(lines) == expected


def test_many_real_servers_are_refused_for_a_maglev_table_only():
    nodes = "".join(f"  b{n}: {{role: backend, ipv6: '2001:db8:7::{n:x}'}}\n" for n in range(1, 4100))
    text = changed((WWW, f"{DIRECT}\n    ipvs: {{scheduler: wlc}}"), ("  s1:", f"{nodes}  s1:"))
    assert problems(text) == []
    assert "a Maglev table has 4093 slots" in problems(text.replace("wlc", "mh"))[0]


def test_a_mark_belongs_to_one_service():
    shop = "  shop: {vips: [198.51.100.9], pool: web, ipvs: {mark: 7}}\npools:"
    text = changed(("pool: web", "pool: web\n    ipvs: {mark: 7}"), ("pools:", shop))
    assert problems(text) == ["17:56: mark 7 already belongs to service 'www', line 16 (choose another)"]


L7 = "  l7-1: {role: l7, ipv4: 192.0.2.151, ipv6: 2001:db8:1::151}\n"


def l7s(*serials: str) -> str:
    """The good file with that many L7 nodes from line 9 on; each with what stands there."""
    lines = [
        f"  l7-{n}: {{role: l7, ipv4: 192.0.2.{150 + n}, ipv6: 2001:db8:1::{150 + n}{serial}}}\n"
        for n, serial in enumerate(serials, start=1)
    ]
    return changed((L7, "".join(lines)))


@pytest.mark.parametrize(
    ("serials", "expected"),
    [
        ((", serial: 1", ", serial: 2"), []),
        ((", serial: 9", ", serial: 2"), []),
        (
            (", serial: 4", ", serial: 4", ", serial: 9"),
            ["10:70: serial 4 already belongs to node 'l7-1', line 9 (use 10, the next free one)"],
        ),
        (
            (", serial: 4", ", serial: 7", "", ""),
            [
                "11:3: node 'l7-3' has no serial, but other l7 nodes have one (add serial: 8, the next free one)",
                "12:3: node 'l7-4' has no serial, but other l7 nodes have one (add serial: 9, the next free one)",
            ],
        ),
        (
            (", serial: 4", "", ""),
            [
                (
                    "9:62: 'l7-1' with a serial, but 2 other l7 nodes without "
                    "(give every one a serial, or none: lowest first, in the order of the file)"
                )
            ],
        ),
        (
            (", serial: 1", ", serial: x"),
            ["10:70: serial 'x' is not a whole number (use decimal digits, without a leading 0)"],
        ),
    ],
)
def test_serials(serials: tuple[str, ...], expected: list[str]):
    assert problems(l7s(*serials)) == expected


def test_roles_number_their_nodes_by_themselves_and_l4_nodes_do_not():
    text = changed(("role: l7", "role: l7, serial: 1"), ("ipv4: 192.0.2.141", "ipv4: 192.0.2.141, serial: 1"))
    assert problems(text) == ["7:39: 'serial' has no effect on an L4 node (leave it out)"]
    text = changed(*((f"{name}: {{", f"{name}: {{serial: {n}, ") for n, name in ((1, "l7-1"), (1, "s1"), (2, "s2"))))
    assert problems(text) == []


def test_metrics_listen_on_a_port_of_their_own():
    text = changed(("pools:", "metrics: {port: 5580}\npools:"))
    assert problems(text) == [
        (
            "16:17: the health URI and metrics both listen on port 5580 of the L7 nodes "
            "(choose another port for one of them)"
        ),
    ]
    assert problems(changed(("pools:", "metrics: {port: 0}\npools:"))) == []


def test_real_servers_take_gre_with_a_checksum_or_without():
    gre = "ipvs: {tunnel: gre}"
    other = "\n  two: {vips: [2001:db8:2::9], pool: web, through: backend, ipvs: {tunnel: gre, tunnel_checksum: {}}}"

    def found(checksum):
        return problems(changed((WWW, f"{DIRECT}\n    {gre}{other.replace('{}', checksum)}")))

    assert found("none") == []
    (problem,) = found("full")
    assert "either with a checksum or without; service 'www' has none" in problem
