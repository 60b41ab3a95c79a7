"""The labs of servers that announce themselves, as a user runs them: every step holds, and says who answered."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab.scenarios.choice import scenario_of

pytestmark = pytest.mark.lab
LBNODE = Path(sys.executable).with_name("lbnode")
RUNS = {
    "anycast-exabgp": ("small", ()),
    "anycast-exabgp tiered": ("tiered", ("limit", "behind")),
    "anycast-two-routers": ("small", ()),
    "anycast-bird": ("small", ()),
}
CLAIMS = [
    ("anycast-exabgp", r"next hops of 198\.51\.100\.1: r1: s1, s2, s3"),
    ("anycast-exabgp", r"sessions of 4 requests and more, each to one server: 80 flows, 0 broken"),
    ("anycast-exabgp", r"health page fails -> no next hop any more in its routers' kernels: \d+ ms"),
    ("anycast-exabgp", r"touch disable -> no next hop any more in its routers' kernels: \d+ ms"),
    ("anycast-exabgp", r"\d+ requests answered, \d+ failed .*; then s2 \d+ \(\d+ %\), s3 \d+ \(\d+ %\)\n"),
    ("anycast-exabgp", r"clients: connect: Network is unreachable, connect: No route to host"),
    ("anycast-exabgp", r"1 of 3 servers announced for nothing"),
    ("anycast-exabgp tiered", r"r1 with at most 2 next hops \(rs1, rs2\): s1 .*, s2 .*, s3 .*, s4 "),
    ("anycast-exabgp tiered", r"s1 and s2 sick: r1 leaves rs1"),
    ("anycast-two-routers", r"u1: s1 \d+ \(\d+ %\), s2 \d+ "),
    ("anycast-two-routers", r"r2 suspended -> r3 in the kernel of cr1: \d+ ms\n.*; then s2 80 \(100 %\)"),
    ("anycast-two-routers", r"r3 suspended -> r2 in the kernel of cr1: \d+ ms\n.*; then s1 80 \(100 %\)"),
    ("anycast-two-routers", r"resumed -> r2 and r3 in the kernel of cr1: \d+ ms\n.*; then s1 .*, s2 "),
    ("anycast-two-routers", r"web server of s1 killed -> r3 in the kernel of cr1.*\n.*; then s2 80 \(100 %\)"),
    ("anycast-bird", r"table of edge: server-1 with local preference 100, server-2 with local preference 50"),
    ("anycast-bird", r"server-1 answers 203\.0\.113\.\d+.*, 5 times of 5\n.*server-2 answers 203\.0\.113\.\d+"),
    ("anycast-bird", r"BIRD stopped on server-2 -> server-1 alone"),
    ("anycast-bird", r"web server of server-1 killed -> server-2 in the kernel of edge: \d+ ms"),
    ("anycast-bird", r"web server of server-1 started -> server-1 again: \d+ ms"),
    ("anycast-bird", r"isp has no route to 198\.51\.100\.1 any more"),
    ("anycast-bird", r"http://192\.0\.2\.1/: server-1 .*, server-2 .*; servers see the clients' own addresses"),
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Name of a run -> the finished process; each is run once, when it is first asked for."""
    done = {}

    def of(name):
        if name not in done:
            topology, (scale, only) = name.split()[0], RUNS[name]
            options = ["--rounds=1", f"--scale={scale}", f"--logs={tmp_path_factory.mktemp('anycast')}"]
            command = [LBNODE, "lab", "run", topology, *options, *(f"--only={step}" for step in only)]
            done[name] = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        return done[name]

    return of


@pytest.mark.parametrize("name", RUNS)
def test_every_step_holds(outputs, name):
    found, (scale, only) = outputs(name), RUNS[name]
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    steps = scenario_of(name.split()[0]).chosen(scale, only)
    for step in steps:
        after = found.stdout.partition(f"== {step.title}\n")[2]
        assert re.search(r"^ +[\d.]+ +ok, ", after.partition("==")[0], re.MULTILINE), f"{step.name}\n{after[:2000]}"
    assert f"torn down; all {len(steps)} steps held" in found.stdout


@pytest.mark.parametrize(("name", "claim"), CLAIMS)
def test_claim(outputs, name, claim):
    """Without the times that lines begin with."""
    text = re.sub(r"^ *[\d.]+  +", "", outputs(name).stdout, flags=re.MULTILINE)
    assert re.search(claim, text), text
