"""The units: systemd itself accepts them, and the order in which a machine leaves follows from them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode import templates
from lbnode.cli.maintenance import drain, maint, ready
from lbnode.config.leaving import Leaving
from lbnode.paths import Paths

UNITS = Path(templates.share("templates")) / "systemd"
BIN = Path(sys.executable).parent


def test_systemd_accepts_them(tmp_path):
    names = []
    for file in sorted(UNITS.glob("*.service")) + sorted(UNITS.glob("*.path")):
        # systemd-analyze 252 does not look where ExecSearchPath says.
        text = re.sub(r"^(Exec\w+=)(lbnode|exabgp) ", rf"\g<1>{BIN}/\2 ", file.read_text(), flags=re.MULTILINE)
        name = file.name.replace("@.", "@l4.")
        (tmp_path / name).write_text(text)
        names.append(str(tmp_path / name))
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    assert (done.returncode, done.stderr) == (0, "")


def setting(unit, name):
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def test_a_machine_that_shuts_down_leaves_before_its_programs_end():
    after = " ".join(setting("lbnode-leave.service", "After")).split()
    agents = {f"lbnode-agent@{role}.service" for role in ("l4", "l7", "backend")}
    assert {*agents, "lbnode-exabgp.service", "lbnode-haproxy.service", "network-online.target"} <= set(after)
    assert setting("lbnode-leave.service", "ExecStart") == [f"rm -f {Paths().boot_agent_check}"]


def test_the_command_it_runs_is_one_that_there_is():
    (words,) = setting("lbnode-leave.service", "ExecStop")
    program, verb, *options = re.findall(r'"[^"]*"|\S+', words)
    assert (program, verb) == ("lbnode", "drain")
    context = drain.make_context("drain", [option.strip('"') for option in options])
    assert context.params["this_boot"]
    assert context.params["wait"]


def test_there_is_time_for_it():
    seconds = {"s": 1, "min": 60}

    def limit(unit):
        ((number, word),) = re.findall(r"^(\d+)(\w+)$", setting(unit, "TimeoutStopSec")[0])
        return int(number) * seconds[word]

    rule = Leaving()
    assert limit("lbnode-agent@.service") > rule.step_s + rule.limit_s
    assert limit("lbnode-leave.service") > 60


@pytest.mark.parametrize("command", [drain, maint, ready])
def test_every_way_has_a_help_text(command):
    assert command.help
