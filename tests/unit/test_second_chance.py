"""What a real server should have for a second chance: which services, which tables, which peers, and why not."""

from dataclasses import replace

import pytest
from cluster import small

from lbnode.chance.generations import Past, merged, now
from lbnode.chance.layout import pack
from lbnode.drivers import Observed
from lbnode.maglev import Server, build
from lbnode.plan import diff
from lbnode.resources import (
    ChanceEndpoint,
    ChanceFilter,
    ChanceOwn,
    ChancePeer,
    ChanceTable,
    Classifier,
    ServiceKey,
)
from lbnode.roles import desired
from lbnode.roles.inputs import Chance, Inputs
from lbnode.roles.second_chance import by_file
from lbnode.templates import load

HAS = Chance("0123456789ab", ("eth0",))
KINDS = (Classifier, ChanceTable, ChanceEndpoint, ChancePeer, ChanceOwn, ChanceFilter)


def wanted(cluster=None, name="l7-1", role="l7", **inputs):
    found = desired(role, Inputs(cluster or small(), name, templates=load(), **{"chance": HAS, **inputs}))
    rows = [row for row in found.rows if isinstance(row, KINDS)]
    verdict = next((verdict for verdict in found.verdicts if verdict.kind == "second chance"), None)
    return rows, verdict


def of(kind, rows):
    return [row for row in rows if isinstance(row, kind)]


def test_an_l7_node_has_everything():
    rows, verdict = wanted()
    assert of(Classifier, rows) == [Classifier("0123456789ab")]
    assert of(ChanceFilter, rows) == [ChanceFilter("eth0", "0123456789ab")]
    assert of(ChanceOwn, rows) == [ChanceOwn(4, "192.0.2.193"), ChanceOwn(6, "2001:db8:c000:280::193")]
    peers = {row.address: row.what for row in of(ChancePeer, rows)}
    assert peers == {
        "192.0.2.137": "l4",
        "2001:db8:c000:280::137": "l4",
        "192.0.2.138": "l4",
        "2001:db8:c000:280::138": "l4",
        "192.0.2.194": "real-server",
        "2001:db8:c000:280::194": "real-server",
    }
    endpoints = {str(row.service): row.table for row in of(ChanceEndpoint, rows)}
    assert endpoints == {
        "198.51.100.1:80/tcp": 0,
        "198.51.100.1:443/tcp": 1,
        "[2001:db8:c633:6401::1]:80/tcp": 2,
        "[2001:db8:c633:6401::1]:443/tcp": 3,
    }
    assert (verdict.state, verdict.good, verdict.reason) == ("on", True, "4 tables, up to 1 generations; on eth0")


def test_a_backend_has_it_for_the_services_it_answers():
    cluster = small("direct: {vips", "direct: {ports: [81], vips")
    rows, _ = wanted(cluster, "s1", "backend")
    assert [str(row.service) for row in of(ChanceEndpoint, rows)] == ["[2001:db8:c633:6401::4]:81/tcp"]
    assert {row.address for row in of(ChancePeer, rows) if row.what == "real-server"} == {"2001:db8:c000:280::e2"}


def test_without_a_word_of_any_l4_node_the_file_counts():
    cluster = small()
    rows, _ = wanted(cluster)
    known = by_file(cluster, cluster.services["www"], 4, ServiceKey("198.51.100.1", "tcp", 80))
    assert [server.address for server in known.structure.servers] == ["192.0.2.193", "192.0.2.194"]
    assert of(ChanceTable, rows)[0].content == pack([known])


def test_what_l4_nodes_have_told_counts_and_old_real_servers_are_peers():
    servers = [Server(address, 80, 100, 100) for address in ("192.0.2.193", "192.0.2.199")]
    told = now({"198.51.100.1:80/tcp": build(servers, 4)}, ["192.0.2.194"], 1.0)
    past = merged(Past(), [told], 1.0, 3600)
    rows, _ = wanted(past=past)
    generations = past.generations("198.51.100.1:80/tcp")
    assert of(ChanceTable, rows)[0].content == pack(generations, ["192.0.2.194"])
    assert ChancePeer("192.0.2.199", "real-server") in rows


def test_services_that_share_their_generations_share_a_table():
    cluster = small("vips: [198.51.100.1, ", "vips: [198.51.100.1, 198.51.100.2, 198.51.100.3, ")
    rows, _ = wanted(cluster)
    tables = {str(row.service): row.table for row in of(ChanceEndpoint, rows)}
    assert tables["198.51.100.1:80/tcp"] == tables["198.51.100.3:80/tcp"] == 0
    assert len(of(ChanceTable, rows)) == 4


@pytest.mark.parametrize(
    "setting",
    ["ipvs: {scheduler: rr}", "ipvs: {persistence_s: 60}", "ipvs: {tunnel: gue}", "ipvs: {forwarding: route}"],
)
def test_what_has_no_table_or_another_header_has_no_second_chance(setting):
    rows, verdict = wanted(small("pool: web}\n  direct", f"pool: web, {setting}}}\n  direct"))
    assert rows == []
    assert verdict is None


def test_by_the_address_alone_where_the_port_is_not_hashed():
    rows, _ = wanted(small("pool: web}\n  direct", "pool: web, ipvs: {flags: [mh-fallback]}}\n  direct"))
    assert {row.by_port for row in of(ChanceEndpoint, rows)} == {False}


def test_a_firewall_mark_stands_for_all_its_endpoints():
    rows, _ = wanted(small("pool: web}\n  direct", "pool: web, ipvs: {mark: 7}}\n  direct"))
    assert {str(row.service): row.table for row in of(ChanceEndpoint, rows)} == {
        "198.51.100.1:80/tcp": 0,
        "198.51.100.1:443/tcp": 0,
        "[2001:db8:c633:6401::1]:80/tcp": 1,
        "[2001:db8:c633:6401::1]:443/tcp": 1,
    }


def test_it_can_be_switched_off():
    cluster = small("pools:", "second_chance: {enabled: false}\npools:")
    rows, verdict = wanted(cluster)
    assert rows == []
    assert (verdict.state, verdict.reason) == ("off", "second_chance.enabled is false")


@pytest.mark.parametrize(
    ("chance", "reason"),
    [
        (Chance(refused="kernel 4.19.0 has no bpf(2)"), "kernel 4.19.0 has no bpf(2)"),
        (Chance("0123456789ab"), "no Ethernet device has this node's own address"),
    ],
)
def test_where_it_is_not_possible_the_rest_works_and_it_is_said(chance, reason):
    found = desired("l7", Inputs(small(), "l7-1", templates=load(), chance=chance))
    assert not [row for row in found.rows if isinstance(row, KINDS)]
    assert len(found.rows) > 5
    verdict = next(verdict for verdict in found.verdicts if verdict.kind == "second chance")
    assert (verdict.good, verdict.state, verdict.reason) == (False, "not possible", reason)


def test_the_filter_comes_last_and_goes_first():
    rows, _ = wanted()
    assert diff([], rows).changes[-1].row.KIND == "chance-filter"
    gone = [change.row.KIND for change in diff(rows, []).changes]
    assert (gone[0], gone[-1]) == ("chance-filter", "classifier")


def test_a_table_is_shown_by_its_digest():
    rows, _ = wanted()
    table = of(ChanceTable, rows)[0]
    other = replace(table, digest="ffffffffffff", content=b"")
    assert str(diff([other], [table])) == f"~ chance-table 0 digest ffffffffffff -> {table.digest}"
    assert Observed((replace(table, content=b""),)).rows[0] == table
