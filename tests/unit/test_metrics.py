"""Metrics: complete, documented, and what the status says."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cluster
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lbnode.agent import metrics
from lbnode.agent.drift import mended
from lbnode.agent.metrics import KNOWN, Counts, Snapshot
from lbnode.drivers import Result
from lbnode.ipvs.counters import Counters, decode
from lbnode.ipvs.netlink import attribute
from lbnode.plan import Change, diff
from lbnode.reconcile import Pass
from lbnode.resources import Announcement, Destination, ServiceKey, Sysctl
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs
from lbnode.templates import load

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
WEB = ServiceKey("198.51.100.1", "tcp", 80)
WEB6 = ServiceKey("2001:db8:c633:6401::1", "tcp", 443)


def of(role, name):
    return desired(role, Inputs(cluster.small(), name, templates=load(Path("/nowhere"))))


def status(**more):
    """What an L4 node's agent tells."""
    found = of("l4", "l4-1")
    plan = diff(found.rows, found.rows)
    return {
        "node": "l4-1",
        "role": "l4",
        "agent": {"pid": 1, "since": 1000.5},
        "admin": "ready",
        "admin_mode": "ready",
        "admin_next": 1795298400,
        "verdicts": [verdict.as_json() for verdict in found.verdicts],
        "last_pass": {"at": 1001.0, "seconds": 0.25, "cause": "start", "changes": 3, "foreign": ["x"], "waiting": []},
        "counts": Counts(passes=7, changes=3).__dict__,
        "problems": ["pass: no"],
        "recent": [],
        "health": {"http://a": {"up": True}, "http://b": {"up": False}, "http://c": {"up": None}},
        "peers": {"192.0.2.129": {"state": "up"}, "2001:db8::1": {"state": "down"}},
        "told": [asdict(Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137", 0, ("65535:0", "65001:1")))],
        "speaker": {"running": True, "problem": "", "agent_gone": None},
        "leaving": {"phase": "withdrawn", "since": 1000.5, "until": None, "waits_for": "the end"},
        "damped": {"198.51.100.1": 1100.0},
        "tables": plan.tables_as_json(),
    } | more


def told(snapshot):
    """What monitoring reads: name and labels to value."""
    families = text_string_to_metric_families(metrics.text(snapshot).decode())
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def found():
    rows = of("l4", "l4-1").rows
    counters = {WEB: Counters(5, 1 << 40, 1 << 50), ServiceKey.of_mark(0x6C000001, 4): Counters(1, 1, 1)}
    names = {"192.0.2.193": "l7-1", "192.0.2.194": "l7-2"}
    down = Destination(ServiceKey("198.51.100.1", "tcp", 443), "192.0.2.194", 0)
    probing = Destination(ServiceKey.of_mark(0x6C000001, 4), "192.0.2.193", 1)
    return told(Snapshot(status(), (*rows, down, probing), names, counters))


def test_the_page_is_the_generated_one():
    assert PAGE.read_text() == metrics.page(), "make docs"


def test_every_metric_is_documented_once_and_has_a_proper_name(found):
    names = [known.name for known in KNOWN]
    assert len(names) == len(set(names))
    assert {name for name, *_ in found if name.startswith("lbnode_")} <= set(names)
    others = {"lbnode_in_service", "lbnode_second_chance", "lbnode_second_chance_packets_total"}
    assert set(names) - {name for name, *_ in found} == others  # which an L4 node has not
    assert all(known.about.endswith(".") for known in KNOWN)


def test_what_peers_are_told_and_how_the_node_leaves(found):
    assert found["lbnode_speaker_up",] == 1
    assert found["lbnode_peer_prefixes", "peer=192.0.2.129"] == 1
    assert found["lbnode_peer_prefixes", "peer=2001:db8::1"] == 0
    assert found["lbnode_departure", "phase=withdrawn"] == 1
    assert found["lbnode_departure_since_seconds",] == 1000.5
    assert found["lbnode_damped_until_seconds", "vip=198.51.100.1"] == 1100
    told = [labels for name, *labels in found if name == "lbnode_told_info"]
    assert told == [
        [
            "communities=65535:0 65001:1",
            "large_communities=",
            "local_preference=",
            "med=0",
            "next_hop=192.0.2.137",
            "peer=192.0.2.129",
            "prefix=198.51.100.1/32",
            "prepend=0",
        ]
    ]


def test_an_l4_node(found):
    assert found["lbnode_admin_state", "state=ready"] == 1
    assert found["lbnode_admin_state", "state=drain"] == 0
    assert found["lbnode_announced", "vip=198.51.100.1"] == 1
    assert found["lbnode_peer_up", "peer=192.0.2.129"] == 1
    assert found["lbnode_peer_up", "peer=2001:db8::1"] == 0
    assert found["lbnode_probe_up", "probe=http://a"] == 1
    assert found["lbnode_probe_up", "probe=http://b"] == 0
    assert ("lbnode_probe_up", "probe=http://c") not in found
    assert found["lbnode_server_weight", "address=192.0.2.193", "server=l7-1"] == 100
    assert found["lbnode_server_weight", "address=192.0.2.194", "server=l7-2"] == 0
    assert found["lbnode_server_up", "address=192.0.2.194", "server=l7-2"] == 1
    assert found["lbnode_service_packets_total", f"service={WEB}"] == 1 << 40
    assert not [key for key in found if "fwmark" in str(key)]
    assert (found["lbnode_passes_total",], found["lbnode_changes_total",]) == (7, 3)
    assert (found["lbnode_problems",], found["lbnode_foreign",], found["lbnode_pass_seconds",]) == (1, 1, 0.25)
    assert "process_resident_memory_bytes" in {name for name, *_ in found}


def test_the_fingerprint_as_a_number_is_the_one_as_text(found):
    texts = {key[2]: key[1].partition("=")[2] for key in found if key[0] == "lbnode_table_info"}
    assert {f"service={WEB}", f"service={WEB6}"} <= texts.keys()
    assert all(found["lbnode_table_fingerprint", service] == int(text, 16) for service, text in texts.items())
    assert all(found["lbnode_table_right", service] == 1 for service in texts)


def test_another_table_is_told(found):
    tables = status()["tables"]
    wrong = {key: {"fingerprint": "ffffffffffff", "wanted": "000000000001", "equal": False} for key in tables}
    none = {str(WEB6): {"fingerprint": "", "wanted": "000000000001", "equal": False}}
    again = told(Snapshot(status(tables=wrong | none)))
    assert again["lbnode_table_fingerprint", f"service={WEB}"] == 0xFFFFFFFFFFFF
    assert again["lbnode_table_right", f"service={WEB}"] == 0
    assert ("lbnode_table_fingerprint", f"service={WEB6}") not in again
    assert again["lbnode_table_right", f"service={WEB6}"] == 0


def test_before_the_first_pass():
    early = told(Snapshot(status(last_pass={}, verdicts=[], tables={}, health={}, peers={})))
    assert early["lbnode_passes_total",] == 7
    assert ("lbnode_pass_seconds",) not in early


def test_an_l7_node():
    verdict = of("l7", "l7-1").verdicts[0].as_json()
    assert told(Snapshot(status(role="l7", verdicts=[verdict])))["lbnode_in_service",] == 1


def test_counts():
    counts = Counts()
    change = Change(None, Sysctl("net.ipv4.ip_forward", "1"))
    counts.add(Pass(diff((), ()), (Result(change), Result(change, "no"))))
    counts.add(Pass(diff((), ()), (Result(change),)), 1)
    counts.add(None)
    counts.add(Pass(diff((), ())))
    assert counts == Counts(passes=4, failed_passes=2, changes=2, failed_changes=1, drift_repairs=1)


def test_drift_is_what_nobody_asked_for():
    one, two = Sysctl("net.ipv4.ip_forward", "1"), Sysctl("net.ipv4.vs.sloppy_tcp", "1")
    wanted, done = Desired((one, two)), Pass(diff((), ()), (Result(Change(None, one)), Result(Change(None, two), "no")))
    nothing = diff((), ())
    assert mended(wanted, Desired((one, two)), nothing, done) == 1
    assert mended(Desired((two,)), wanted, nothing, done) == 0  # newly wanted
    assert mended(wanted, wanted, diff((two,), (one, two)), done) == 0  # it had not taken before
    assert mended(wanted, wanted, replace(nothing, waiting=("gone at last",)), done) == 0
    assert mended(wanted, wanted, nothing, Pass(nothing)) == 0


@pytest.mark.parametrize(("kind", "size"), [(10, 4), (12, 8)])
def test_counters_of_old_and_new_kernels(kind, size):
    numbers = {1: 3, 2: 2**31, 3: 0, 4: 9, 5: 0}
    stats = b"".join(attribute(number, value.to_bytes(size, sys.byteorder)) for number, value in numbers.items())
    assert decode(attribute(1, attribute(kind, stats))) == Counters(3, 2**31, 9)


def test_the_command_line_begins_without_any_of_it():
    code = "import sys; from lbnode.cli import run; run(['--help']); run(['status', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"prometheus_client", "aiohttp", "pyroute2", "rich", "lbnode.agent.metrics"} & loaded


@pytest.mark.parametrize(("good", "state", "value"), [(True, "on", 1), (True, "off", 0), (False, "not possible", 0)])
def test_a_second_chance_is_counted_by_reason(good, state, value):
    verdict = {"kind": "second chance", "name": "l7-1", "good": good, "state": state, "reason": ""}
    counted = {"socket": 17, "forwarded": 4, "forwarded-again": 0}
    found = told(Snapshot(status(role="l7", verdicts=[verdict], second_chance=counted)))
    assert found["lbnode_second_chance",] == value
    assert found["lbnode_second_chance_packets_total", "reason=forwarded"] == 4
    assert found["lbnode_second_chance_packets_total", "reason=forwarded-again"] == 0
