"""What a node of each role should look like."""

from dataclasses import replace

import pytest
from cluster import TEXT, small

from lbnode.config.load import parse as parse_cluster
from lbnode.health.state import Health, Probe
from lbnode.maintenance.state import parse
from lbnode.resources import (
    Address,
    Announcement,
    Destination,
    DestinationOrder,
    File,
    IpvsTimeouts,
    Link,
    LocalRoute,
    Rule,
    Running,
    ServerState,
    ServiceKey,
    Sysctl,
    VirtualService,
)
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.targets import probes
from lbnode.templates import load

TEMPLATES = load()
URI4 = Probe("http", "192.0.2.193", 5580, "/healthcheck")
URI6 = Probe("http", "2001:db8:c000:280::193", 5580, "/healthcheck")
AGENT = Probe("agent", "192.0.2.193", 5555)
WWW4 = ServiceKey("198.51.100.1", "tcp", 80)
WWW6 = ServiceKey("2001:db8:c633:6401::1", "tcp", 80)


def inputs(name="l4-1", **options):
    return Inputs(small(), name, templates=TEMPLATES, **options)


def rows(kind, role="l4", **options):
    name = {"l4": "l4-1", "l7": "l7-1", "backend": "s1"}[role]
    return [row for row in desired(role, inputs(name, **options)).rows if isinstance(row, kind)]


def weights(service=WWW4, **options):
    return [row.weight for row in rows(Destination, **options) if row.service == service]


def test_an_l4_node_has_every_vip_port_and_real_server():
    assert {str(row.service) for row in rows(VirtualService)} == {
        "198.51.100.1:80/tcp",
        "198.51.100.1:443/tcp",
        "[2001:db8:c633:6401::1]:80/tcp",
        "[2001:db8:c633:6401::1]:443/tcp",
        "[2001:db8:c633:6401::4]:80/tcp",
    }
    assert [row.address for row in rows(Destination) if row.service == WWW4] == ["192.0.2.193", "192.0.2.194"]
    direct = ServiceKey("2001:db8:c633:6401::4", "tcp", 80)
    assert DestinationOrder(direct, ("2001:db8:c000:280::e1", "2001:db8:c000:280::e2")) in rows(DestinationOrder)
    assert Address("198.51.100.1", "lb-vip") in rows(Address)
    assert Sysctl("net.ipv4.vs.sloppy_tcp", "1") in rows(Sysctl)


def test_each_vip_is_announced_to_the_peers_of_its_family_with_the_node_as_next_hop():
    assert set(rows(Announcement)) == {
        Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137"),
        Announcement("2001:db8:c633:6401::1/128", "2001:db8:c000:280::1", "2001:db8:c000:280::137"),
        Announcement("2001:db8:c633:6401::4/128", "2001:db8:c000:280::1", "2001:db8:c000:280::137"),
    }


def test_one_probe_serves_many_vips():
    found = probes(small())
    assert len(found) == len(set(found))
    assert [probe.id for probe in found if "192.0.2.193" in probe.id] == [
        "agent://192.0.2.193:5555",
        "http://192.0.2.193:5580/healthcheck",
    ]


def test_a_server_that_is_down_keeps_its_row_at_weight_0_and_its_place_in_the_table():
    down = {URI4: Health(False, "HTTP 503")}
    row = next(row for row in rows(Destination, health=down) if row.address == "192.0.2.193")
    assert (row.weight, row.table_weight) == (0, 100)
    assert weights(health=down) == [0, 100]
    assert weights(WWW6, health=down) == [100, 100]
    reason = desired("l4", inputs(health=down)).reasons[row.key]
    assert reason == "down: HTTP 503"


@pytest.mark.parametrize(
    ("line", "weight"),
    [("ready", 100), ("drain", 0), ("down", 0), ("maint", 0), ("70%", 70), ("99%", 100), ("0%", 0), ("1%", 10)],
)
def test_what_an_l7_says_of_itself_decides_its_weight(line, weight):
    health = {URI4: Health(True, "HTTP 200"), URI6: Health(True, "HTTP 200"), AGENT: Health(True, "", parse(line))}
    assert weights(health=health) == [weight, 100]
    assert weights(WWW6, health=health) == [weight, 100]


def test_what_is_not_known_yet_empties_no_table():
    assert weights(health={URI4: Health()}) == [100, 100]


SILENT = Health(False, "no answer within 1 s", silent=True)
OWN4, OWN6 = "192.0.2.137", "2001:db8:c000:280::137"
FAILED4, FAILED6 = LocalRoute("192.0.2.193", OWN4), LocalRoute("2001:db8:c000:280::193", OWN6)


@pytest.mark.parametrize("line", ["down", "maint", "stopped", "fail # disks"])
def test_a_server_that_says_it_is_out_has_its_flows_ended_in_both_families(line):
    health = {URI4: Health(True, "HTTP 200"), AGENT: Health(True, "", parse(line))}
    assert set(rows(LocalRoute, health=health)) == {FAILED4, FAILED6}
    assert weights(health=health) == weights(WWW6, health=health) == [0, 100]


def test_a_server_that_is_silent_has_its_flows_ended_in_that_family_alone():
    found = desired("l4", inputs(health={URI4: SILENT}))
    assert [row for row in found.rows if isinstance(row, LocalRoute)] == [FAILED4]
    assert found.reasons[FAILED4.key] == "down: no answer within 1 s"
    verdict = next(verdict for verdict in found.verdicts if verdict.name == "l7-1 (192.0.2.193)")
    assert verdict.state == "weight 0, failed: its flows are ended"


@pytest.mark.parametrize(
    ("line", "health"),
    [
        ("drain", Health(True, "HTTP 200")),
        ("drain", Health(False, "HTTP 503")),
        ("ready", Health(False, "HTTP 503")),
        ("ready", Health(False, "ECONNREFUSED")),
        ("0%", Health(False, "HTTP 503")),
        ("ready", Health(None, "cannot probe: EMFILE")),
    ],
)
def test_the_flows_of_a_server_that_answers_are_its_own_business(line, health):
    """A drained L7 node's health URI is 503, and stays so for a moment after it is ready again."""
    found = {URI4: health, AGENT: Health(True, "", parse(line))}
    assert rows(LocalRoute, health=found) == []


def test_a_draining_server_that_is_gone_has_failed():
    found = desired("l4", inputs(health={URI4: SILENT, AGENT: Health(True, "", parse("drain"))}))
    assert FAILED4 in found.rows
    assert found.reasons[FAILED4.key] == "drain on the node itself, and then no answer within 1 s"


def test_nobody_is_failed_when_all_are():
    both = {probe: SILENT for probe in probes(small()) if probe.kind != "agent"}
    assert rows(LocalRoute, health=both) == []
    assert weights(health=both) == [0, 0]
    del both[Probe("http", "192.0.2.194", 5580, "/healthcheck")]
    assert rows(LocalRoute, health=both) == [FAILED4]


def test_an_address_that_another_service_still_uses_is_left_alone():
    extra = """
  other: {vips: ["2001:db8:c633:6401::5"], pool: two, through: backend}
"""
    pool = "\n  two: {port: 81, check: {type: tcp}}\nservices:"
    cluster = parse_cluster(TEXT.replace("\nservices:", pool) + extra)
    gone = {Probe("http", "2001:db8:c000:280::e1", 80, "/health"): SILENT}

    def ended(health):
        found = desired("l4", replace(inputs(health=health), cluster=cluster))
        return [row.address for row in found.rows if isinstance(row, LocalRoute)]

    assert ended(gone) == []
    assert ended({**gone, Probe("tcp", "2001:db8:c000:280::e1", 81): SILENT}) == ["2001:db8:c000:280::e1"]


def test_what_ends_flows_is_prepared_while_nobody_has_failed():
    assert rows(Rule) == [Rule(version, 200, 77, "lo", 0, 0xFFFFFFFF) for version in (4, 6)]
    assert Sysctl("net.ipv4.conf.all.accept_local", "1") in rows(Sysctl)
    assert rows(Rule, "l7") == rows(Rule, "backend") == []


def test_the_time_outs_are_the_files():
    assert rows(IpvsTimeouts) == [IpvsTimeouts(3900, 120, 300)]
    cluster = small("pools:", "ipvs: {tcp_timeout_s: 900}\npools:")
    found = desired("l4", replace(inputs(), cluster=cluster)).rows
    assert IpvsTimeouts(900, 120, 300) in found


@pytest.mark.parametrize("line", ["drain", "maint", "down"])
def test_maintenance_of_an_l4_withdraws_its_vips_and_keeps_ipvs(line):
    admin = parse(f"{line} # disks")
    assert rows(Announcement, admin=admin) == []
    assert rows(VirtualService, admin=admin) == rows(VirtualService)
    assert rows(Address, admin=admin) == rows(Address)
    verdict = desired("l4", inputs(admin=admin)).verdicts[-1]
    assert (verdict.state, verdict.good) == ("withdrawn", False)
    assert "disks" in verdict.reason


def test_a_vip_without_its_quorum_is_withdrawn_and_says_why():
    cluster = small("pool: web}", "pool: web, quorum: 2}")
    found = desired("l4", replace(inputs(health={URI4: Health(False, "refused")}), cluster=cluster))
    assert [row.prefix for row in found.rows if isinstance(row, Announcement) and ":" not in row.prefix] == []
    verdict = next(verdict for verdict in found.verdicts if verdict.name == "198.51.100.1")
    assert verdict.reason.startswith("www has 1 of 2 servers, needs 2")


def test_an_l7_node_decapsulates_and_runs_haproxy():
    found = desired("l7", inputs("l7-1")).rows
    assert Link("lb-ipip", "ipip", "192.0.2.193") in found
    assert Link("lb-ip6", "ip6tnl", "2001:db8:c000:280::193") in found
    assert Sysctl("net.ipv4.conf.lb-ipip.rp_filter", "0") in found
    assert Sysctl("net.ipv4.conf.all.rp_filter", "0") in found
    assert {row.address for row in found if isinstance(row, Address)} == {"198.51.100.1", "2001:db8:c633:6401::1"}
    assert [row.checker for row in found if isinstance(row, File)] == ["haproxy"]
    assert [row.program for row in found if isinstance(row, Running)] == ["haproxy"]


@pytest.mark.parametrize(
    ("line", "up"), [("ready", True), ("75%", True), ("0%", False), ("drain", False), ("down", False)]
)
def test_the_enabler_follows_what_people_set(line, up):
    assert rows(ServerState, "l7", admin=parse(line)) == [ServerState("enabler", "enabler", up)]


def test_a_backend_changes_only_what_direct_return_needs():
    found = desired("backend", inputs("s1")).rows
    assert [row for row in found if isinstance(row, Link)] == [
        Link("lb-vip", "dummy"),
        Link("lb-ip6", "ip6tnl", "2001:db8:c000:280::e1"),
    ]
    assert [row for row in found if isinstance(row, Address)] == [Address("2001:db8:c633:6401::4", "lb-vip")]
    without = replace(inputs("s1"), cluster=small("pool: web, through: backend", "pool: web"))
    assert desired("backend", without).rows == ()


def test_maintenance_changes_no_row_of_the_data_path_on_an_l7():
    ready = set(desired("l7", inputs("l7-1")).rows)
    drained = set(desired("l7", inputs("l7-1", admin=parse("drain"))).rows)
    assert {type(row) for row in ready ^ drained} == {ServerState}
