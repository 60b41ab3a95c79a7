"""What the doctor says of BIRD and FRR, which announce what stands in a route table."""

from pathlib import Path

import pytest
from test_announced_routes import BY_TABLE

from lbnode.config.load import parse
from lbnode.doctor import host, table

CABLE = "  table: 99\n  unnumbered: {leaf: {interface: eth0}}\n"
PLAIN, CABLED = parse(BY_TABLE), parse(BY_TABLE.replace("  table: 99\n", CABLE))
NOBODY = "neither BIRD nor FRR runs: nobody announces what stands in table 99"


@pytest.mark.parametrize(
    ("cluster", "running", "expected"),
    [
        (PLAIN, set(), [("bgp speaker", "fail", NOBODY)]),
        (PLAIN, {"bfdd"}, [("bgp speaker", "fail", NOBODY)]),
        (PLAIN, {"bird"}, [("bgp speaker", "ok", "BIRD runs, for table 99")]),
        (CABLED, {"bgpd", "bfdd"}, [("bgp speaker", "ok", "FRR runs, for table 99")]),
        (
            CABLED,
            {"bgpd"},
            [
                ("bgp speaker", "ok", "FRR runs, for table 99"),
                ("bfd", "fail", "FRR's bfdd does not run: the silence of leaf is noticed after the hold time"),
            ],
        ),
        (
            CABLED,
            {"bird"},
            [
                ("bgp speaker", "ok", "BIRD runs, for table 99"),
                ("unnumbered", "fail", "BIRD does not speak with leaf: it knows peers by their addresses"),
            ],
        ),
        (
            PLAIN,
            {"bird", "bgpd"},
            [
                ("bgp speaker", "warn", "BIRD and FRR both run: if both read table 99, peers hear everything twice"),
            ],
        ),
    ],
)
def test_the_speaker_and_what_it_can_do(cluster, running, expected):
    found = table.speakers(cluster, "s1", running)
    assert [(one.name, one.verdict, one.seen) for one in found] == expected


def test_what_others_put_into_the_table_is_told():
    (found,) = table.strangers(["route 203.0.113.9/32 in table 99"])
    assert (found.verdict, found.seen) == ("warn", "route 203.0.113.9/32 in table 99: the speaker may announce it")


def test_programs_that_run_are_found_by_their_kernel_name(tmp_path: Path):
    for pid, name in (("1", "systemd"), ("20", "bgpd"), ("21", "bgpd-helper")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(f"{name}\n")
    (tmp_path / "22").mkdir()
    assert host.running(table.PROGRAMS, tmp_path) == {"bgpd"}
