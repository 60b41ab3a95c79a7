"""What is said of one flow by the file and by the tables of live nodes."""

import cluster
import pytest

from lbnode import explain, impact, maglev
from lbnode.chance.generations import Past, merged, now
from lbnode.explain import Question
from lbnode.ipvs.live import Entry
from lbnode.resources import ServiceKey
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.templates import load

WEB = ServiceKey("198.51.100.1", "tcp", 80)
FLOW = ("203.0.113.7", 40000)
BY_FILE = "l7-1 (192.0.2.193), slot 2964 of 4093, table 72c79c86d424"


def question(text=None, key=WEB):
    found = text or cluster.small()
    rows = desired("l4", Inputs(found, "l4-1", templates=load())).rows
    served = explain.table_key(rows, key)
    wanted = tuple(row for row in rows if getattr(row, "service", None) == served and row.KIND != "source-allow")
    return Question(found, FLOW, key, served, wanted)


ASKED = question()


def told(*rows, announced=("198.51.100.1",), **settings):
    """What an agent tells; rows as (address, weight) or (address, weight, table weight), oldest first."""
    servers = [{"address": row[0], "port": 80, "weight": row[1], "table_weight": row[-1]} for row in rows]
    table = {"scheduler": "mh", "flags": ["mh-fallback", "mh-port"], "size": 4093, "rows": servers} | settings
    return {"announced": announced and list(announced), "tables": {str(WEB): table}}


RIGHT = told(("192.0.2.193", 100), ("192.0.2.194", 100))
DRAINED = told(("192.0.2.193", 0, 100), ("192.0.2.194", 100))


def text(live):
    return explain.lines(explain.explanation(ASKED, live))


def test_by_the_file_alone():
    assert text(None) == [
        "203.0.113.7:40000 -> 198.51.100.1:80/tcp",
        f"by the file: {BY_FILE}",
        "the same on every L4 node while all servers are up: l4-1, l4-2",
    ]


def test_all_nodes_agree():
    assert text({"l4-1": RIGHT, "l4-2": RIGHT})[2:] == [
        f"l4-1: {BY_FILE}",
        f"l4-2: {BY_FILE}",
        "the same on l4-1, l4-2",
    ]


def test_a_node_that_differs_is_told_with_its_difference():
    lines = text({"l4-1": RIGHT, "l4-2": DRAINED})
    assert lines[3].startswith("l4-2: l7-2 (192.0.2.194), slot 2964 of 4093, table ")
    assert lines[3].endswith(": by fallback, for l7-1 (192.0.2.193) is at weight 0; not as the file")
    assert lines[4:] == [
        "l4-2 differs: 192.0.2.193 has weight 0, not 100",
        "the nodes differ on this flow, which breaks when ECMP moves it: l4-1: 192.0.2.193; l4-2: 192.0.2.194",
    ]


def test_a_withdrawn_node_is_said_to_be_and_does_not_count():
    lines = text({"l4-1": RIGHT, "l4-2": DRAINED | {"announced": []}})
    assert lines[3].endswith("; not as the file; the VIP is withdrawn there")
    assert not [line for line in lines if line.startswith("the nodes differ")]


def test_the_same_server_by_another_table():
    lines = text({"l4-1": RIGHT, "l4-2": told(("192.0.2.193", 1000), ("192.0.2.194", 100))})
    assert lines[4] == "l4-2 differs: 192.0.2.193 has weight 1000, not 100"
    assert lines[5].startswith("the nodes agree on this flow, but their tables differ: l4-1: 72c79c86d424; l4-2: ")


def test_a_node_that_does_not_answer_is_named():
    lines = text({"l4-1": RIGHT, "l4-2": {"error": "192.0.2.138: timed out"}})
    assert lines[3:] == ["l4-2: no answer: 192.0.2.138: timed out"]


def test_an_entry_comes_first():
    entry = Entry("192.0.2.194", 80, "ESTABLISHED", 899)
    lines = text({"l4-1": RIGHT | {"entry": entry}})
    assert lines[2:] == [
        "l4-1: l7-2 (192.0.2.194), by its entry, ESTABLISHED, 899 s left",
        f"l4-1, a new flow: {BY_FILE}",
    ]


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        (told(("192.0.2.194", 100), ("192.0.2.193", 100)), ["another order: 192.0.2.194 192.0.2.193"]),
        (told(("192.0.2.193", 100)), ["192.0.2.194 is not there"]),
        (
            told(("192.0.2.193", 100), ("192.0.2.194", 100), ("192.0.2.9", 1)),
            ["192.0.2.9 does not belong there"],
        ),
        (
            told(("192.0.2.193", 100), ("192.0.2.194", 100), flags=["mh-port"]),
            ["flags mh-port, not mh-fallback,mh-port"],
        ),
        (
            told(("192.0.2.193", 100), ("192.0.2.194", 100), scheduler="wrr", flags=[]),
            ["scheduler wrr, not mh", "flags none, not mh-fallback,mh-port"],
        ),
    ],
)
def test_every_kind_of_difference(table, lines):
    assert explain.by_node(ASKED, table)["differences"] == lines


def test_no_table_and_no_service():
    other = told(scheduler="rr", flags=[])
    assert text({"l4-1": other, "l4-2": {"announced": None, "tables": {}}})[2:] == [
        "l4-1: scheduler rr decides, not a Maglev table",
        "l4-1 differs: scheduler rr, not mh",
        "l4-1 differs: flags none, not mh-fallback,mh-port",
        "l4-1 differs: 192.0.2.193 is not there",
        "l4-1 differs: 192.0.2.194 is not there",
        "l4-2: there is no such virtual service",
    ]


def test_a_service_by_firewall_mark():
    old = "ports: [80, 443], pool: web"
    asked = question(cluster.small(old, f"{old}, ipvs: {{mark: 7, persistence_s: 60}}"))
    assert asked.served == ServiceKey.of_mark(7, 4)
    found = explain.explanation(asked, None)
    table = maglev.build(impact.tables(asked.wanted)[asked.served].servers, 4)
    server = maglev.lookup(table, *FLOW).server
    assert server
    assert found["file"]["server"]["address"] == server.address
    assert explain.lines(found)[2].startswith("with persistence: a client goes where its last flow went")


def test_nobody_takes_it():
    assert explain.table_key(ASKED.wanted, WEB._replace(port=81)) is None


def remembered(*addresses, at, past=None):
    servers = [maglev.Server(address, 80, 100, 100) for address in addresses]
    return merged(past or Past(), [now({str(WEB): maglev.build(servers, 4)}, (), at)], at, 86400)


def test_where_it_gets_a_second_chance():
    """It began when l7-2 was alone."""
    past = remembered("192.0.2.193", "192.0.2.194", at=1795298400.0, past=remembered("192.0.2.194", at=1795290000.0))
    found = explain.explanation(ASKED, None, past)
    assert [(chance["server"]["name"], chance["in_use"]) for chance in found["second_chance"]] == [
        ("l7-1", True),
        ("l7-2", False),
    ]
    assert explain.lines(found)[3:] == [
        "second chance: a real server that it comes to and that has no socket for it sends it on, to",
        "  l7-1 (192.0.2.193), by table 72c79c86d424, in use",
        f"  l7-2 (192.0.2.194), by table {found['second_chance'][1]['table']}, until 2026-11-21T22:00:00Z",
    ]


@pytest.mark.parametrize("setting", ["second_chance: {enabled: false}\npools:", "pools:"])
def test_without_one_nothing_is_said(setting):
    asked = question(cluster.small("pools:", setting))
    past = remembered("192.0.2.193", at=1.0) if "false" in setting else Past()
    assert explain.explanation(asked, None, past)["second_chance"] == []
