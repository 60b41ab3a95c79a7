"""Nodes of a lab that another process keeps, and the cables of machines."""

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from lbnode.lab import links, outage
from lbnode.lab.attach import Attached, attach
from lbnode.lab.build import FABRIC
from lbnode.lab.errors import LabError
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.lab.supervisor import Program, Supervisor
from lbnode.lab.topology import Machine
from lbnode.lab.topology import Port as Place
from lbnode.lab.wait import wait_until

pytestmark = pytest.mark.kernel


def test_an_attached_node_is_the_same_node(tmp_path: Path) -> None:
    with Node("l4a") as node:
        node.write("/run/mark", "here")
        seen = Attached("l4a", node.holder)
        assert seen.read("/run/mark") == "here"
        assert seen.call(socket.gethostname) == "l4a"
        assert seen.run(["hostname"]).stdout == "l4a\n"
        pid = seen.fork(lambda: 7 if socket.gethostname() == "l4a" else 1, tmp_path / "log")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        seen.close()
        assert node.read("/run/mark") == "here"


def test_a_node_that_is_gone_is_named() -> None:
    with Node("l4a") as node:
        holder = node.holder
    with pytest.raises(LabError, match="cannot enter node l4a: No such"):
        Attached("l4a", holder)


def test_no_note_is_no_lab(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot find a lab at"):
        attach(tmp_path)


@pytest.fixture
def lab():
    """Three machines on one switch, as much of a lab as cables need."""
    names = ("m1", "m2", "m3")
    with Node(FABRIC) as fabric, Node("m1") as one, Node("m2") as two, Node("m3") as three:
        nodes = dict(zip(names, (one, two, three), strict=True))
        ports = [Port(node, "infra", (f"192.0.2.{index}/24",)) for index, node in enumerate(nodes.values(), start=1)]
        links.lan(fabric, "infra", ports)
        machines = {name: Machine(name, (Place("infra", ()),)) for name in names}
        topology = SimpleNamespace(machines=machines, lans={"infra": names})
        yield SimpleNamespace(nodes={**nodes, FABRIC: fabric}, topology=topology)


def answers(lab) -> bool:
    """Nobody listens, and somebody says so."""

    def attempt() -> int:
        with socket.socket() as channel:
            channel.settimeout(0.5)
            return channel.connect_ex(("192.0.2.2", 9))

    return lab.nodes["m1"].call(attempt) == errno.ECONNREFUSED


def has_carrier(lab) -> bool:
    return "LOWER_UP" in lab.nodes["m2"].run(["ip", "link", "show", "infra"]).stdout


@pytest.mark.parametrize(("apart", "again", "carrier"), [("cut", "mend", False), ("silence", "unsilence", True)])
def test_a_cable_is_pulled_with_and_without_anybody_seeing_it(lab, apart, again, carrier) -> None:
    wait_until(lambda: answers(lab), 10, "an answer")
    getattr(outage, apart)(lab, "m2")
    wait_until(lambda: has_carrier(lab) == carrier, 10, "what the machine sees")
    assert not answers(lab)
    getattr(outage, again)(lab, "m2")
    wait_until(lambda: answers(lab), 10, "an answer again")


def test_a_suspended_machine_keeps_its_carrier_but_neither_answers_nor_runs(lab, tmp_path) -> None:
    with Supervisor(tmp_path) as supervisor:
        key = supervisor.add(Program(lab.nodes["m2"], "tail", ["tail", "-f", "/dev/null"]))
        wait_until(lambda: supervisor.pid(key), 10, "a program")

        def state() -> str:
            return Path(f"/proc/{supervisor.pid(key)}/stat").read_text().rpartition(")")[2].split()[0]

        wait_until(lambda: answers(lab), 10, "an answer")
        outage.suspend(lab, supervisor, "m2")
        wait_until(lambda: state() == "T", 10, "a stopped program")
        assert has_carrier(lab)
        assert not answers(lab)
        outage.resume(lab, supervisor, "m2")
        wait_until(lambda: state() == "S", 10, "a program that goes on")
        wait_until(lambda: answers(lab), 10, "an answer again")
