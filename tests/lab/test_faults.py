"""`lbnode lab faults` as a user runs it: a few cells of the matrix, on the smallest lab."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab
LBNODE = Path(sys.executable).with_name("lbnode")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One run: what it printed, and its cells by program."""
    folder = tmp_path_factory.mktemp("faults")
    options = ["--only=agent", "--only=bird", "--fault=SIGKILL", f"--json={folder / 'cells.json'}", f"--logs={folder}"]
    argv = [LBNODE, "lab", "faults", "anycast-bird", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cells = json.loads((folder / "cells.json").read_text())
    return done.stdout, {cell["victim"]: cell for cell in cells}


def test_nobody_notices_that_the_agent_was_killed(found):
    _, cells = found
    cell = cells["agent"]
    assert cell["gaps"]["first_s"] is None, cell
    assert (cell["broken"], cell["failed"]) == (0, 0), cell


def test_the_routes_go_with_the_speaker_and_come_back(found):
    _, cells = found
    gaps = cells["bird"]["gaps"]
    assert gaps["whole"]
    assert gaps["most"] == gaps["ways"] == 1
    assert gaps["first_s"] < 5 < 60 > gaps["all_s"]


def test_the_table_has_a_row_for_each_cell(found):
    text, cells = found
    assert list(cells) == ["agent", "bird"]
    assert re.search(r"agent, SIGKILL +as before +0 of \d+ ", text), text
    assert re.search(r"bird, SIGKILL +all ways gone after [\d.]+ s, for [\d.]+ s ", text), text
