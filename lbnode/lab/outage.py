"""Cables: pulled, so that the machine sees it, or silent, so that nobody does; and whole machines that stand still.

A machine of a LAN is joined to the LAN's bridge. *Cut* takes the bridge's end of its cable down: the machine loses its
carrier, and everybody else only its answers. *Silence* blocks the bridge's port: nothing passes in either direction and
no one is told, which is what a machine that has just died looks like to the others.

A machine that is *suspended*, like a virtual one whose processors are taken away, keeps its cables and its programs,
but nothing passes it and nothing runs. Its kernel is the lab's and cannot stop, so it is made to drop all packets.
"""

import os
import signal
from contextlib import suppress

from lbnode.lab import bpf, links
from lbnode.lab.build import FABRIC, Lab
from lbnode.lab.errors import LabError
from lbnode.lab.supervisor import Supervisor

DROP = bpf.Program("drop", 2, ((0xB7, 0, 2), (0x95, 0, 0)))  # r0 = 2 (TC_ACT_SHOT); exit
BOTH_WAYS = (bpf.INGRESS, bpf.EGRESS)
DISABLED, FORWARDING = 0, 3  # include/uapi/linux/if_bridge.h, BR_STATE_*


def port(lab: Lab, name: str) -> str:
    """The interface of the fabric that a machine's only cable ends in. Raises LabError when it has no such."""
    lans = [port.lan for port in lab.topology.machines[name].ports]
    if len(lans) != 1 or len(lab.topology.lans[lans[0]]) == 2:
        raise LabError(f"cannot cut {name} off: it does not hang on one switch")
    return links.end_in_bridge(lans[0], lab.topology.lans[lans[0]].index(name))


def cut(lab: Lab, name: str) -> None:
    links.state(lab.nodes[FABRIC], port(lab, name), up=False)


def mend(lab: Lab, name: str) -> None:
    links.state(lab.nodes[FABRIC], port(lab, name), up=True)


def silence(lab: Lab, name: str) -> None:
    _port_state(lab, name, DISABLED)


def unsilence(lab: Lab, name: str) -> None:
    _port_state(lab, name, FORWARDING)


def suspend(lab: Lab, supervisor: Supervisor, name: str) -> None:
    bpf.attach(lab.nodes[name], _ports(lab, name), DROP, BOTH_WAYS)
    _signal(supervisor, name, signal.SIGSTOP)


def resume(lab: Lab, supervisor: Supervisor, name: str) -> None:
    _signal(supervisor, name, signal.SIGCONT)
    bpf.detach(lab.nodes[name], _ports(lab, name), DROP, BOTH_WAYS)


def _ports(lab: Lab, name: str) -> list[str]:
    return [port.lan for port in lab.topology.machines[name].ports]


def _signal(supervisor: Supervisor, name: str, number: signal.Signals) -> None:
    """To all programs of a machine and to their children: each program leads a session of its own."""
    own = [key for key in tuple(supervisor.keys()) if key.partition("/")[0] == name]
    for pid in filter(None, map(supervisor.pid, own)):
        with suppress(ProcessLookupError):
            os.killpg(pid, number)


def _port_state(lab: Lab, name: str, state: int) -> None:
    """By bridge(8): pyroute2's keyword for it is taken by the interface's own state."""
    lab.nodes[FABRIC].run(["bridge", "link", "set", "dev", port(lab, name), "state", str(state)], check=True)
