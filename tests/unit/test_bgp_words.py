"""What the relay reads and says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.bgp import words

ROUTE = {**words.BLANK, "prefix": "198.51.100.1/32", "peer": "192.0.2.1", "next_hop": "192.0.2.11"}
EBGP = {"192.0.2.1": words.Neighbor(65010, 65000)}
KEY = ("192.0.2.1", "198.51.100.1/32")


def wanted(**changes):
    return json.dumps({"serial": "1", "config": "c", "announcements": [{**ROUTE, **changes}]})


def test_what_is_written_is_read():
    assert words.wanted_from(words.wanted_text([ROUTE], "c", "1")) == words.Wanted({KEY: ROUTE}, "c", "1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"serial": "1", "config": "c", "announcements": [1]}',
        wanted(prefix="198.51.100.1/32\nshutdown"),
        wanted(prefix="198.51.100.1/24"),
        wanted(peer="router"),
        wanted(peer="2001:db8::1"),
        wanted(next_hop="2001:db8::1"),
        wanted(med=-1),
        wanted(med="1\nshutdown"),
        wanted(communities=["65535:0]; shutdown"]),
        wanted(communities=None),
        wanted(local_preference=1 << 32),
        wanted(large_communities=["1:2"]),
        wanted(prepend=17),
        wanted(prepend="1 ] ; shutdown"),
    ],
)
def test_anything_else_is_refused_whole(text):
    with pytest.raises(ValueError, match=r"."):
        words.wanted_from(text)


def test_what_an_older_version_wrote_is_read():
    old = {key: value for key, value in ROUTE.items() if key in ("prefix", "peer", "next_hop", "med", "communities")}
    text = json.dumps({"serial": "1", "config": "c", "announcements": [old]})
    assert words.wanted_from(text).routes == {KEY: ROUTE}


def test_the_command_of_a_route_with_everything():
    route = {
        **ROUTE,
        "med": 100,
        "communities": ["65535:0", "65010:7"],
        "local_preference": 50,
        "large_communities": ["65010:1:2"],
        "prepend": 2,
    }
    start = "neighbor 192.0.2.1 announce route 198.51.100.1/32 next-hop 192.0.2.11 med 100 local-preference 50"
    rest = "community [65535:0 65010:7] large-community [65010:1:2]"
    for asn, path in ((65000, "65010 65010 65010"), (65010, "65010 65010")):
        (step,) = words.difference({}, {KEY: route}, {"192.0.2.1": words.Neighbor(65010, asn)})
        assert step.command == f"{start} as-path [ {path} ] {rest}"


def test_prefixes_with_the_same_attributes_are_told_together():
    every = [(peer, f"198.51.100.{i}/32") for peer in ("192.0.2.1", "192.0.2.2") for i in range(25)]
    wanted = {key: {**ROUTE, "peer": key[0], "prefix": key[1]} for key in every}
    wanted[every[3]]["med"] = 7
    steps = words.difference({}, wanted, EBGP, refused=[every[0]], alone=[every[1]])
    assert steps[0].command == "neighbor 192.0.2.1 announce route 198.51.100.1/32 next-hop 192.0.2.11"
    assert [len(step.routes) for step in steps] == [1, 20, 2, 1, 20, 5]
    told = {key: route for step in steps for key, route in step.routes.items()}
    assert told == {key: wanted[key] for key in every[1:]}
    prefixes = " ".join(prefix for _, prefix in list(steps[2].routes))
    assert steps[2].command == f"neighbor 192.0.2.1 announce attributes next-hop 192.0.2.11 nlri {prefixes}"
    back = words.difference(wanted, {}, EBGP)
    assert back[1].command.startswith("neighbor 192.0.2.1 withdraw attributes next-hop 192.0.2.11 nlri 198.51.100.")
    assert dict.fromkeys(every) == {key: route for step in back for key, route in step.routes.items()}


def test_withdrawals_come_before_announcements():
    other = {**ROUTE, "prefix": "198.51.100.2/32"}
    steps = words.difference({KEY: ROUTE}, {("192.0.2.1", other["prefix"]): other}, EBGP)
    assert [step.command for step in steps] == [
        "neighbor 192.0.2.1 withdraw route 198.51.100.1/32",
        "neighbor 192.0.2.1 announce route 198.51.100.2/32 next-hop 192.0.2.11",
    ]


def test_a_route_with_other_attributes_is_announced_anew_and_not_withdrawn():
    changed = {**ROUTE, "med": 5}
    assert [step.routes for step in words.difference({KEY: ROUTE}, {KEY: changed}, EBGP)] == [{KEY: changed}]


ROUTES = st.dictionaries(
    st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.sampled_from(["198.51.100.1/32", "198.51.100.2/32"])),
    st.sampled_from([None, 1, 2]),
).map(lambda found: {key: {**ROUTE, "peer": key[0], "prefix": key[1], "med": med} for key, med in found.items()})


@given(ROUTES, ROUTES)
def test_the_difference_leads_from_one_to_the_other(told, wanted):
    for step in words.difference(told, wanted, EBGP):
        for key, route in step.routes.items():
            if route is None:
                del told[key]
            else:
                told[key] = route
    assert told == wanted
    assert words.difference(told, wanted, EBGP) == []


def test_neighbors_are_known_with_their_numbers_and_the_digest_that_all_of_them_carry():
    lines = [
        "neighbor 192.0.2.1 {",
        '  description "lbnode config abc1";',
        "\tlocal-as 65010;",
        "\tpeer-as 65000;",
        "}",
        "neighbor 2001:db8::1 {",
        '  description "lbnode config abc1";',
        "}",
    ]
    peers = {"192.0.2.1": words.Neighbor(65010, 65000), "2001:db8::1": words.Neighbor()}
    assert words.neighbors_from(lines) == (peers, "abc1")
    assert words.neighbors_from([*lines[:6], '  description "mine";', "}"]) == (peers, "")
    assert words.neighbors_from([*lines[:6], '  description "lbnode config abc2";']) == (peers, "")


def test_routes_are_read_as_5_0_and_as_4_2_write_them():
    expected = {KEY: {"next_hop": "192.0.2.11"}, ("2001:db8::1", "2001:db8:100::1/128"): {"next_hop": "2001:db8::11"}}
    lines = [
        "192.0.2.1 ipv4 unicast 198.51.100.1/32 next-hop 192.0.2.11",
        "2001:db8::1 ipv6 unicast 2001:db8:100::1/128 next-hop 2001:db8::11 med 5",
    ]
    assert words.routes_from(lines) == expected
    assert words.routes_from([f"neighbor {line}" for line in lines]) == expected
    assert words.difference(words.routes_from(lines), {KEY: ROUTE}, EBGP)[1].routes == {KEY: ROUTE}


def test_peers_are_up_when_established():
    lines = [
        "Peer            AS        up/down state       |     #sent     #recvd",
        "192.0.2.1       65002     0:00:04 established           6          1",
        "2001:db8:0:280::1 65002      down established           6          1",
        "192.0.2.9       65002        down idle                  0          0",
    ]
    assert words.states_from(lines) == {"192.0.2.1": "up", "2001:db8:0:280::1": "up", "192.0.2.9": "down"}


def test_only_state_events_are_of_interest():
    neighbor = {"address": {"local": "192.0.2.11", "peer": "192.0.2.1"}, "state": "down", "reason": "closed"}
    assert words.state_from(json.dumps({"type": "state", "neighbor": neighbor})) == ("192.0.2.1", "down", "closed")
    assert words.state_from('{"type": "notification", "notification": "shutdown"}') is None
    assert words.state_from("{") is None
