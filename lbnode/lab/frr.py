"""FRR in a node of the lab: zebra, bfdd and bgpd, each with the same configuration file.

A node has a /run of its own, so every node's daemons find each other at FRR's usual places, and `vtysh` in a node
speaks with that node's. On a real machine watchfrr has vtysh load the file into the daemons, also when one comes back.
Here each reads it itself, and says in its log which lines are not its own.
"""

import shutil
from pathlib import Path

from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

PROGRAMS = Path("/usr/lib/frr")
STATE = Path("/run/frr")
ZEBRA = "zebra"
DAEMONS = (ZEBRA, "bfdd", "bgpd")
"""In the order of their start: the others connect to zebra."""


def prepare(node: Node) -> None:
    """The directory of the daemons' sockets. Raises LabError when FRR is not installed."""

    def make() -> None:
        STATE.mkdir(parents=True, exist_ok=True)
        shutil.chown(STATE, "frr", "frr")

    if not (PROGRAMS / "zebra").exists():
        raise LabError("cannot start FRR: it is not installed; apt install frr")
    node.call(make)


def readable(config: str) -> str:
    """A configuration as a daemon can read it by itself: without the lines that say `exit`. A daemon that does not know
    the section which such a line ends would leave its own configuration mode."""
    return "".join(line for line in config.splitlines(keepends=True) if line.strip() != "exit")


def command(daemon: str, config: Path) -> list[str]:
    """Runs in the foreground, without a TCP port for people; changes to user frr by itself."""
    argv = [str(PROGRAMS / daemon), "-f", str(config), "-P", "0", "-F", "datacenter"]
    return [*argv, "--log", "stdout", "--log-level", "info"]


def needs(daemon: str) -> str | None:
    """The path without which there is nothing to start yet."""
    return None if daemon == ZEBRA else str(STATE / "zserv.api")


def clients(node: Node) -> set[str]:
    """The daemons that are connected to zebra. They try it every 10 s, after three failures every 60 s (lib/zclient.c);
    watchfrr would start them again with it."""
    done = node.run(["vtysh", "-d", ZEBRA, "-c", "show zebra client summary"])
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()} & {"bgp", "bfd"}
