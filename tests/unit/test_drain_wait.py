"""When no flow is left: what is counted, and for how long there must be none."""

import re
import struct

import cluster
import pytest

from lbnode.cli import run
from lbnode.errors import LbnodeError
from lbnode.maintenance import flows
from lbnode.maintenance.calm import Calm, seconds
from lbnode.resources import ServiceKey

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def proc(packed):
    """As the kernel of this machine prints an address."""
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", packed))


def test_what_lasts_at_one_place():
    here = f"{proc(bytes([198, 51, 100, 1]))}:0050"
    lines = [
        HEAD,
        f"   0: {here} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n",  # listens
        f"   1: {here} 077100CB:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n",
        f"   2: {here} 077100CB:9C41 06 00000000:00000000 00:00000000 00000000     0        0 0 1\n",  # TIME_WAIT
        f"   3: {here[:-1]}1 077100CB:9C42 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n",
        f"   4: {here} 077100CB:9C43 04 00000000:00000000 00:00000000 00000000     0        0 2 1\n",
    ]
    assert flows.count(lines, {here}) == 2


def test_places_and_the_listings_of_both_families(tmp_path):
    wanted = flows.places(cluster.small(), "l7-1")
    assert {f"{address}:{port}" for address, port in wanted} == {
        "198.51.100.1:80",
        "198.51.100.1:443",
        "2001:db8:c633:6401::1:80",
        "2001:db8:c633:6401::1:443",
    }
    lines = {"tcp": [HEAD], "tcp6": [HEAD]}
    for address, port in wanted:
        name = "tcp" if address.version == 4 else "tcp6"
        lines[name].append(f"   1: {proc(address.packed)}:{port:04X} 00:00 01 x\n")
        if address.version == 4:  # a server that listens for both families
            mapped = proc(bytes(10) + b"\xff\xff" + address.packed)
            lines["tcp6"].append(f"   1: {mapped}:{port:04X} 00:00 08 x\n")
    (tmp_path / "tcp").write_text("".join(lines["tcp"]))
    assert flows.connections(wanted, tmp_path) == 2  # a machine without IPv6
    (tmp_path / "tcp6").write_text("".join(lines["tcp6"]))
    assert flows.connections(wanted, tmp_path) == 6


def test_a_backend_is_reached_by_haproxy_and_by_clients():
    wanted = {f"{address} {port}" for address, port in flows.places(cluster.small(), "s1")}
    assert wanted == {"2001:db8:c000:280::e1 80", "2001:db8:c633:6401::4 80"}


def test_the_services_of_an_l4_node():
    marked = cluster.small("ports: [80, 443], pool: web", "ports: [80, 443], pool: web, ipvs: {mark: 7}")
    assert {ServiceKey.of_mark(7, 4), ServiceKey.of_mark(7, 6)} < flows.services(marked)
    assert flows.services(cluster.small()) == {
        ServiceKey("198.51.100.1", "tcp", 80),
        ServiceKey("198.51.100.1", "tcp", 443),
        ServiceKey("2001:db8:c633:6401::1", "tcp", 80),
        ServiceKey("2001:db8:c633:6401::1", "tcp", 443),
        ServiceKey("2001:db8:c633:6401::4", "tcp", 80),
    }


def test_calm():
    calm = Calm(4)
    looks = [(3, 0), (0, 1), (0, 4), (1, 5), (0, 6), (0, 9), (0, 10), (0, 11)]
    assert [calm.take(left, now) for left, now in looks] == [False] * 6 + [True, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        ("5min", 300),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("2D", 172800),
        (" 1h ", 3600),
    ],
)
def test_spans(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0s", "2 h", "h", "1.5h", "-1h", "1w", "tomorrow", "9999d", "1h30", "٣h"])
def test_no_spans(text):
    with pytest.raises(LbnodeError, match="cannot understand"):
        seconds(text)


@pytest.mark.parametrize(
    "words",
    [
        ["drain", "--for", "soon"],
        ["drain", "--timeout", "5s"],
        ["drain", "--for", "1h", "--deadline", "2h"],
        ["maint", "--deadline", "1h"],
        ["ready", "--for", "1h"],
    ],
)
def test_wrong_command_lines_change_nothing(words, tmp_path, capsys):
    assert run([*words, "--etc-dir", str(tmp_path), "--run-dir", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_the_file_that_is_written(tmp_path, capsys):
    options = ["--etc-dir", str(tmp_path), "--run-dir", str(tmp_path)]
    assert run(["drain", "--deadline", "30min", "--for", "2h", "--reason", "new disks", *options]) == 0
    told = capsys.readouterr().out
    word, _, text = (tmp_path / "agent-check").read_text().partition(" # ")
    assert word == "drain"
    assert text.startswith("deadline=2")
    assert " until=2" in text
    assert text.endswith("Z new disks\n")
    assert "drain, maint from 2" in told
    assert run(["maint", "--for", "2h", *options]) == 0
    assert (tmp_path / "agent-check").read_text().startswith("maint # until=2")


def test_waiting_on_a_node_that_the_file_does_not_know_changes_nothing(tmp_path, capsys):
    (tmp_path / "cluster.yaml").write_text(cluster.TEXT)
    options = ["--etc-dir", str(tmp_path), "--run-dir", str(tmp_path), "--node", "l9"]
    assert run(["drain", "--wait", *options]) == 78
    assert "no node 'l9'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.yaml"]


def test_a_node_without_flows_waits_only_until_that_is_sure(tmp_path, capsys):
    text = cluster.TEXT + "probe: {interval_s: 0.1, timeout_s: 0.1}\n"
    (tmp_path / "cluster.yaml").write_text(text)
    options = ["--etc-dir", str(tmp_path), "--run-dir", str(tmp_path), "--node", "l7-1"]
    assert run(["drain", "--wait", "--timeout", "30s", *options]) == 0
    told = capsys.readouterr()
    assert re.search(r"^flows: none, after \d s$", told.out, re.MULTILINE)
    assert told.err == "none; waiting whether it stays so\n"
