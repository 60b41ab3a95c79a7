"""Warnings: what works but is seldom meant."""

import re
from collections import Counter
from pathlib import Path

import cluster
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode import maglev
from lbnode.cli import run
from lbnode.config.advice import HAPROXY_IDLE_S, advice, slots
from lbnode.config.load import parse
from lbnode.config.reference import EXAMPLE

TEMPLATE = Path(__file__).parents[2] / "templates" / "haproxy.cfg.j2"
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
ONE_PEER = "there is one BGP peer for IPv{}, '{}': without it, those VIPs are away"


def warned(*pairs: tuple[str, str]) -> tuple[str, ...]:
    """Of the reference's example, which has none, with pieces of its text replaced."""
    text = EXAMPLE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return advice(parse(text))


def test_the_example_of_the_reference_is_above_all_warnings():
    assert warned() == ()


def test_haproxy_holds_no_flow_longer_than_is_known_here():
    lines = r"^ +timeout (?:client|server|tunnel|http-keep-alive) (\d+)(\w+)"
    found = re.findall(lines, TEMPLATE.read_text(), re.MULTILINE)
    assert len(found) == 4
    assert max(int(number) * UNITS[unit] for number, unit in found) == HAPROXY_IDLE_S


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (
            [("pools:", "ipvs: {tcp_timeout_s: 900}\npools:")],
            [
                (
                    "ipvs.tcp_timeout_s is 900, and HAProxy holds idle flows open for 3600 s (timeout tunnel in "
                    "haproxy.cfg.j2): those of a drained L7 node are reset when they speak again"
                )
            ],
        ),
        ([("role: l4, ipv4: 192.0.2.142", "role: l7, ipv4: 192.0.2.142")], []),
        (
            [("  l4-2:", "  #"), ("  l4-3:", "  #"), ("    r2-v6:", "    #")],
            [
                "there is one L4 node, 'l4-1': without it, every service is away",
                "there is one BGP peer for IPv6, 'r1-v6': without it, those VIPs are away",
            ],
        ),
        (
            [("  shop:", "  shop:\n    quorum: 4")],
            ["service 'shop': quorum 4 is all of its real servers: one that is down withdraws its VIPs"],
        ),
        ([("  shop:", "  shop:\n    quorum: 4\n    below_quorum: keep")], []),
        (
            [("  shop:", "  shop:\n    ipvs: {flags: []}")],
            [
                "service 'shop': without mh-port, all flows of a client's address go to one real server",
                "service 'shop': without mh-fallback, new flows are dropped that belong to a real server at weight 0",
            ],
        ),
        (
            [("  shop:", "  shop:\n    ipvs: {scheduler: wlc, max_connections: 5}")],
            ["service 'shop': with scheduler wlc, flows that ECMP moves to another L4 node break; only mh keeps them"],
        ),
        (
            [("  shop:", "  shop:\n    ipvs: {max_connections: 5}")],
            ["service 'shop': each L4 node counts max_connections by itself, and then their tables differ"],
        ),
        (
            [("  l7-4: {role: l7,", "  l7-4: {role: l7, weight: 1000,")],
            [],
        ),
        (
            [("  l7-4: {role: l7,", "  l7-4: {role: l7, weight: 3,")],
            [
                (
                    "services 'www', 'shop': shares stray from the weights: 'l7-4' gets 0.69 times its own "
                    "(the kernel keeps six bits of weights: use some with a large common divisor, such as 50 and 100)"
                )
            ],
        ),
    ],
)
def test_warnings(pairs: list[tuple[str, str]], expected: list[str]):
    assert list(warned(*pairs)) == expected


def test_many_equal_servers_have_unequal_shares():
    line = '  l7-4: {role: l7, ipv4: 192.0.2.154, ipv6: "2001:db8:c000:280::154"}\n'
    many = "".join(
        f"  m{n}: {{role: l7, ipv4: 10.1.{n >> 8}.{n & 255}, ipv6: '2001:db8:7::{n:x}'}}\n" for n in range(596)
    )
    (text,) = warned((line, line + many))
    assert (
        text.endswith("'m595' gets 1.17 times its own (600 real servers for 4093 slots)") or "600 real servers" in text
    )


@given(st.lists(st.sampled_from([1, 2, 50, 99, 100, 1000]), min_size=1, max_size=12))
def test_slots_are_those_of_the_table(weights: list[int]):
    servers = [maglev.Server(f"192.0.2.{n}", 80, weight, weight) for n, weight in enumerate(weights)]
    held = Counter(maglev.build(servers, 4).slots)
    assert slots(weights) == [held[index] for index in range(len(weights))]


def test_check_prints_warnings_and_exits_0(tmp_path, capsys):
    (tmp_path / "cluster.yaml").write_text(cluster.TEXT)
    options = ["--etc-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    assert run(["check", *options]) == 0
    told = capsys.readouterr()
    expected = [ONE_PEER.format(4, "r1"), ONE_PEER.format(6, "r1-6")]
    assert told.err.splitlines() == [f"warning: {text}" for text in expected]
    assert "good" in told.out
    assert run(["check", "--json", *options]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert f'"{expected[0]}"' in told.out


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("leaving: {step: med, med: 50}, attributes: {med: 50}", "bgp.leaving.med is 50, and a MED of 50 is announced"),
        ("leaving: {step: med}, attributes: {med: 50}", ""),
        (
            "leaving: {step: local-preference, local_preference: 20}, attributes: {local_preference: 10}",
            "bgp.leaving.local_preference is 20, and one of 10 is announced",
        ),
        ("leaving: {step: local-preference}", ""),
    ],
)
def test_a_second_choice_that_is_none(keys, said):
    lines = "".join(f"  {key}\n" for key in re.split(r", (?=\w+: \{)", keys))
    found = [line for line in warned(("  local_asn: 64501\n", f"  local_asn: 64501\n{lines}")) if "bgp.leaving" in line]
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)
