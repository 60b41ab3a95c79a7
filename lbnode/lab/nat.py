"""Destination NAT on a router of a lab, with iptables-legacy: user-mode-linux has no nf_tables."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

MODULES = ("iptable_nat", "xt_nat", "xt_tcpudp")
TABLE = ("iptables-legacy", "-w", "-t", "nat")


@contextmanager
def forwarded(node: Node, public: str, port: int, private: str) -> Iterator[None]:
    """What comes to a TCP port of an address goes to another address for the time of a block; answers find their way
    back by the router's connection table. Raises LabError."""
    # From outside the node: it does not see where the guest's modules are.
    _run(subprocess.run(["modprobe", "-a", *MODULES], capture_output=True, text=True, check=False))
    rule = ["PREROUTING", "-d", public, "-p", "tcp", "--dport", str(port), "-j", "DNAT", "--to-destination", private]
    _run(node.run([*TABLE, "-A", *rule]))
    try:
        yield
    finally:
        _run(node.run([*TABLE, "-D", *rule]))


def _run(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise LabError(f"cannot translate addresses: {done.args[0]}: {done.stderr.strip()}")
