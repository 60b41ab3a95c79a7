"""`lbnode lab run anycast-frr` as a user runs it: every step holds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab.scenarios.anycast_frr import SCENARIO

pytestmark = pytest.mark.lab
LBNODE = Path(sys.executable).with_name("lbnode")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """One run of all steps, one round each."""
    logs = tmp_path_factory.mktemp("anycast-frr")
    argv = [LBNODE, "lab", "run", "anycast-frr", "--rounds=1", f"--logs={logs}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)


def test_the_run_ends_well(everything):
    assert everything.returncode == 0, everything.stdout[-3000:] + everything.stderr[-3000:]
    assert f"torn down; all {len(SCENARIO.steps)} steps held" in everything.stdout


@pytest.mark.parametrize("step", SCENARIO.steps, ids=lambda step: step.name)
def test_step(everything, step):
    _, _, after = everything.stdout.partition(f"== {step.title}\n")
    assert after, f"{step.name} was not reached:\n{everything.stdout[-2000:]}{everything.stderr[-2000:]}"
    assert re.search(r"^ +[\d.]+ +ok, ", after.partition("==")[0], re.MULTILINE), after[:2000]
