"""Rows and our nftables table: what is written is what is read, and what no row says shows as damage."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.net.nftables import networks, replacement
from lbnode.net.nftlisting import in_words_of, rows
from lbnode.plan import diff
from lbnode.resources import FilterDamage, MssClamp, PacketMark, ServiceKey, SourceAllow, SynLimit, TunnelGuard

WEB4, WEB6 = ServiceKey("198.51.100.1", "tcp", 80), ServiceKey("2001:db8:5::1", "tcp", 443)
DNS4, DNS6 = ServiceKey("198.51.100.1", "udp", 53), ServiceKey("2001:db8:5::1", "udp", 53)
ROWS = (
    SourceAllow(WEB4, ("10.0.0.0/8", "192.0.2.1/32")),
    SourceAllow(WEB6, ("2001:db8:7::/48",)),
    SourceAllow(DNS4, ()),
    SynLimit(WEB4, 100, 200),
    SynLimit(WEB6, 1, 1),
    PacketMark(DNS4, 7),
    PacketMark(DNS6, 0xFFFFFFFF),
    MssClamp("198.51.100.1", 1436),
    MssClamp("2001:db8:5::1", 1396),
    TunnelGuard(4, 4, 0, ("192.0.2.137",)),
    TunnelGuard(6, 41, 0, ("2001:db8::137", "2001:db8::138")),
    TunnelGuard(6, 17, 6080, ("2001:db8::137",)),
)

services = st.builds(
    ServiceKey,
    st.ip_addresses().map(str),
    st.sampled_from(["tcp", "udp", "sctp"]),
    st.integers(1, 65535),
)
prefixes = st.builds(lambda address, cut: f"{address}/{address.max_prefixlen - cut}", st.ip_addresses(), st.just(0))


def guard(sources, port):
    """Of the family of the first source, with those of its family."""
    version = sources[0].version
    fit = sorted((one for one in sources if one.version == version), key=int)
    return TunnelGuard(version, 17 if port else {4: 4, 6: 41}[version], port, tuple(str(one) for one in fit))


any_rows = st.lists(
    st.one_of(
        st.builds(SourceAllow, services, st.lists(prefixes, max_size=5, unique=True).map(tuple)),
        st.builds(SynLimit, services, st.integers(1, 1000000), st.integers(1, 1000000)),
        st.builds(PacketMark, services, st.integers(1, 0xFFFFFFFF)),
        st.builds(MssClamp, st.ip_addresses().map(str), st.integers(500, 1460)),
        st.builds(guard, st.lists(st.ip_addresses(), min_size=1, max_size=5, unique=True), st.sampled_from([0, 6080])),
    ),
    unique_by=lambda row: row.key,
)


def written(wanted):
    """The objects that nft would add, as it would list them."""
    commands = json.loads(replacement(wanted))["nftables"]
    assert [next(iter(command)) for command in commands[:2]] == ["add", "delete"]
    return [command["add"] for command in commands[2:]]


def read(objects):
    return rows(json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *objects]}))


@given(any_rows)
def test_what_is_written_is_what_is_read(wanted):
    if wanted:
        assert not diff(in_words_of(wanted, read(written(wanted))), wanted)


def test_no_rows_are_no_table():
    assert json.loads(replacement([])) == {
        "nftables": [
            {"add": {"table": {"family": "inet", "name": "lbnode"}}},
            {"delete": {"table": {"family": "inet", "name": "lbnode"}}},
        ]
    }


@given(st.permutations(ROWS))
def test_the_order_of_rows_does_not_matter(order):
    assert replacement(order) == replacement(ROWS)


def test_networks_that_touch_mean_what_they_join_to():
    halves = SourceAllow(WEB4, ("10.0.0.0/9", "10.128.0.0/9", "2001:db8::/32"))
    whole = SourceAllow(WEB4, ("10.0.0.0/8",))
    assert networks(halves) == networks(whole)
    assert replacement([halves]) == replacement([whole])
    assert in_words_of([halves], [whole]) == (halves,)
    other = replace(whole, sources=("10.0.0.0/9",))
    assert in_words_of([halves], [other]) == (other,)


def element(objects, kind, name):
    return next(item[kind] for item in objects if kind in item and item[kind]["name"] == name)


def chain(objects, name):
    return [item["rule"] for item in objects if "rule" in item and item["rule"]["chain"] == name]


def damage(objects):
    """What shows as damage; the rest must be rows that were wanted."""
    found = read(objects)
    assert {row for row in found if not isinstance(row, FilterDamage)} <= set(ROWS)
    return [row.what for row in found if isinstance(row, FilterDamage)]


def test_another_priority_is_damage():
    objects = written(ROWS)
    element(objects, "chain", "input")["prio"] = 200
    rest = '"policy": "accept"'
    assert [line for line in damage(objects) if rest in line] == [
        'not ours: chain input {"hook": "input", "policy": "accept", "prio": 200, "type": "filter"}',
        'missing: chain input {"hook": "input", "policy": "accept", "prio": -150, "type": "filter"}',
    ]


def test_a_rule_of_others_is_damage_wherever_it_stands():
    for position in range(20):
        objects = written(ROWS)
        first = next(number for number, item in enumerate(objects) if "rule" in item)
        rule = {"rule": {"family": "inet", "table": "lbnode", "chain": "input", "expr": [{"accept": None}]}}
        objects.insert(first + position, rule)
        assert damage(objects) == ['not ours: rule of input: [{"accept": null}]']


def test_every_object_that_is_missing_changes_what_is_read():
    for number in range(1, len(written(ROWS))):
        objects = written(ROWS)
        del objects[number]
        assert diff(read(objects), ROWS), written(ROWS)[number]


def test_a_service_whose_look_up_is_gone_has_no_rows():
    objects = written(ROWS)
    elements = element(objects, "map", "guard4")["elem"]
    elements[:] = [one for one in elements if one[0]["concat"] != ["198.51.100.1", 6, 80]]
    found = read(objects)
    assert not [row for row in found if isinstance(row, SourceAllow | SynLimit) and row.service == WEB4]
    assert any(isinstance(row, FilterDamage) for row in found)


def test_rules_in_another_order_are_damage():
    objects = written(ROWS)
    first, second = chain(objects, "to-198.51.100.1-tcp-80")
    first["expr"], second["expr"] = second["expr"], first["expr"]
    assert damage(objects) == ["in another order: rule of to-198.51.100.1-tcp-80"]


@pytest.mark.parametrize("comment", ["by hand", "hands off"])
def test_a_comment_on_a_rule_is_damage(comment):
    objects = written(ROWS)
    chain(objects, "input")[0]["comment"] = comment
    assert len(damage(objects)) == 2


def test_counts_and_handles_are_not_compared():
    objects = written(ROWS)
    for item in objects:
        for body in item.values():
            body["handle"] = 17
            for statement in body.get("expr", []):
                if "counter" in statement:
                    statement["counter"] = {"packets": 5, "bytes": 300}
    assert not diff(read(objects), ROWS)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["198.51.100.1", "@x", "tcp"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_whatever_others_write_into_it_is_damage_and_no_crash(data):
    objects = written(ROWS)
    item = data.draw(st.sampled_from(objects[1:]))
    (body,) = item.values()
    name = data.draw(st.sampled_from(["expr", "elem"] if "expr" not in body else ["expr"]))
    body[name] = data.draw(st.lists(JUNK, min_size=1, max_size=3))
    assert diff(read(objects), ROWS)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": 1}'])
def test_what_is_not_nfts_json_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        rows(text)
