"""Routers that hash like routers: without this, ECMP in a lab on one kernel does not look at the 5-tuple at all.

A packet keeps its sender's socket hash (`sk_txhash`) across veth pairs and namespaces, and with
fib_multipath_hash_policy=1 the kernel takes a hash that is there as it is (`skb->l4_hash`). Every retransmission
time-out rolls that hash anew, so a stuck flow hops to another next hop by itself, which no real router does: results
look far too good. The cure is a program on the ingress of every router port that invalidates the hash, so that the
router computes one from the packet:

    call bpf_set_hash_invalid    (helper 41; r1, the context, is in place)
    r0 = -1                      (TC_ACT_UNSPEC: go on)
    exit
"""

from collections.abc import Iterable
from pathlib import Path

from lbnode.lab import bpf
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

SET_HASH_INVALID = 41  # include/uapi/linux/bpf.h
REHASH = bpf.Program("rehash", 1, ((0x85, 0, SET_HASH_INVALID), (0xB7, 0, -1), (0x95, 0, 0)))

# keep_addr_on_down: as IPv4 addresses do, IPv6 ones then outlive an interface that is down (ip-sysctl.rst).
SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv6/conf/all/keep_addr_on_down": 1,
    "net/ipv4/fib_multipath_hash_policy": 1,
    "net/ipv6/fib_multipath_hash_policy": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
}


def router(node: Node, ports: Iterable[str]) -> None:
    """Makes a node a router whose ECMP goes by the 5-tuple of each packet; `ports` are all its interfaces."""
    names = list(ports)
    sysctls(node, {**SYSCTLS, **{f"net/ipv4/conf/{name}/rp_filter": 0 for name in names}})
    rehash(node, names)


def sysctls(node: Node, settings: dict[str, int]) -> None:
    """Writes settings below /proc/sys of the node. Raises LabError naming the one that could not be written."""

    def write() -> None:
        for name, value in settings.items():
            try:
                Path("/proc/sys", name).write_text(f"{value}\n")
            except OSError as error:
                raise LabError(f"cannot set {name}={value} in {node.name}: {error.strerror}") from error

    node.call(write)


def rehash(node: Node, ports: Iterable[str]) -> None:
    """Attaches the program to the ingress of interfaces. Raises OSError, NetlinkError."""
    bpf.attach(node, ports, REHASH)
