"""`lbnode lab run three-tier` as a user runs it: every step holds, and a step that does not is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab.scenarios.three_tier import STEPS

pytestmark = pytest.mark.lab
LBNODE = Path(sys.executable).with_name("lbnode")


def run_lab(*arguments):
    return subprocess.run(
        [LBNODE, "lab", "run", "three-tier", *arguments], capture_output=True, text=True, timeout=1500, check=False
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """One run of all steps, with fewer rounds than `make demo` makes."""
    return run_lab("--rounds=3", f"--logs={tmp_path_factory.mktemp('three-tier')}")


def test_the_run_ends_well(everything):
    assert everything.returncode == 0, everything.stdout[-3000:] + everything.stderr[-3000:]
    assert f"torn down; all {len(STEPS)} steps held" in everything.stdout


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_step(everything, step):
    _, _, after = everything.stdout.partition(f"== {step.title}\n")
    assert after, f"{step.name} was not reached:\n{everything.stdout[-2000:]}{everything.stderr[-2000:]}"
    assert re.search(r"^ +[\d.]+ +ok, ", after.partition("==")[0], re.MULTILINE), after[:2000]


def test_the_table_shows_every_vip(everything):
    vips = [f"198.51.100.{last}" for last in (1, 2, 3)] + [f"2001:db8:c633:6401::{last}" for last in (1, 2, 3, 4)]
    for vip in vips:
        assert re.search(rf" {re.escape(vip)} +50 +\d+/\d+/\d+ ", everything.stdout), everything.stdout


def test_an_unknown_step_is_told_with_the_known_ones():
    done = run_lab("--only=nonsense")
    assert done.returncode == 69
    assert "cannot find step nonsense: there are apply, plan, spread" in done.stderr
