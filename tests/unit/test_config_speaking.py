"""What a cluster file says to BIRD and FRR: contradictions at their place, each with its mend."""

import pytest
from test_config_structure import GOOD, changed, problems

from lbnode.config.load import parse

PEERS = "  peers:\n    r1: {address: 192.0.2.129, asn: 64500}\n    r1-v6: {address: 2001:db8:1::129, asn: 64500}\n"
NO_EFFECT = "has no effect with speaker: exabgp (leave it out, or set speaker: table)"
STAY = "whose routes stay until they are removed"
ABOUT = "The node's interface; the peer is whoever answers there"
ELSEWHERE = "a cable has one other end; say by nodes whose it is"


def bgp(lines: str) -> list[str]:
    """The problems of the good file with lines added to `bgp`, from line 3 on."""
    return problems(changed(("  peers:", f"{lines}\n  peers:")))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("  speaker: table", []),
        ("  speaker: table\n  table: 100\n  bfd: {interval_ms: 50}", []),
        ("  speaker: tabel", ["3:12: speaker 'tabel' is not one of exabgp, table (did you mean 'table'?)"]),
        ("  table: 100", [f"3:3: 'table' {NO_EFFECT}"]),
        ("  bfd: {interval_ms: 50}", [f"3:3: 'bfd' {NO_EFFECT}"]),
        ("  unnumbered: {leaf: {interface: eth0}}", [f"3:3: 'unnumbered' {NO_EFFECT}"]),
        (
            "  speaker: table\n  table: 77",
            ["4:10: table 77 holds the routes to failed real servers (use 78, or another)"],
        ),
        ("  dead_man: {after_s: 60}", []),
        (
            "  speaker: table\n  dead_man: {after_s: 60}",
            [f"4:3: 'dead_man' has no effect with speaker: table, {STAY} (leave it out, or set speaker: exabgp)"],
        ),
        ("  speaker: table\n  table: 254", ["4:10: table 254 is not between 1 and 252"]),
        (
            "  speaker: table\n  unnumbered: {a: {interface: e0, nodes: [l4-1]}, b: {interface: e0, nodes: [l4-2]}}",
            [],
        ),
        (
            "  speaker: table\n  unnumbered: {a: {interface: eth0}, b: {interface: eth0, nodes: [l4-2]}}",
            [f"4:53: interface eth0 already belongs to peer 'a', line 4 ({ELSEWHERE})"],
        ),
        (
            "  speaker: table\n  unnumbered: {a: {interface: eth0; neighbor}}",
            ["4:31: 'eth0; neighbor' cannot be an interface (use 1 to 15 letters, digits, '.', '_' or '-')"],
        ),
        (
            "  speaker: table\n  unnumbered: {a: {interface: sixteen-letters-}}",
            ["4:31: 'sixteen-letters-' cannot be an interface (use 1 to 15 letters, digits, '.', '_' or '-')"],
        ),
        (
            "  speaker: table\n  unnumbered: {a: {}}",
            [f"4:16: BGP peer 'a' lacks 'interface' (interface: {ABOUT})"],
        ),
    ],
)
def test_each_contradiction_is_told_at_its_place(lines: str, expected: list[str]):
    assert bgp(lines) == expected


def test_bfd_of_a_peer_needs_another_speaker():
    with_bfd = ("129, asn: 64500}", "129, asn: 64500, bfd: true}")
    assert problems(changed(with_bfd)) == [f"4:44: 'bfd' {NO_EFFECT}"]
    assert problems(changed(with_bfd, ("  peers:", "  speaker: table\n  peers:"))) == []


@pytest.mark.parametrize("nobody", ["", "  peers: {}\n", "  speaker: table\n  unnumbered: {}\n"])
def test_somebody_must_be_there_to_announce_to(nobody: str):
    expected = "1:1: there is no BGP peer to announce to (name routers under peers)"
    assert expected in problems(GOOD.replace(PEERS, nobody))


def test_a_peer_without_an_address_carries_both_families():
    cables = "  speaker: table\n  unnumbered: {leaf: {interface: eth0}}\n"
    assert problems(GOOD.replace(PEERS, cables)) == []
    cable = parse(GOOD.replace(PEERS, cables)).bgp.unnumbered["leaf"]
    assert (cable.asn, cable.nodes, cable.bfd) == (None, None, True)
