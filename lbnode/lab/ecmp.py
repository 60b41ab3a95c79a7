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

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute

from lbnode.lab import links
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_TYPE_SCHED_CLS = 3
SET_HASH_INVALID = 41  # include/uapi/linux/bpf.h
INGRESS = 0xFFFFFFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)

PROGRAM = b"".join(
    struct.pack("<BBhi", code, registers, 0, immediate)
    for code, registers, immediate in ((0x85, 0, SET_HASH_INVALID), (0xB7, 0, -1), (0x95, 0, 0))
)

SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
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
    program = _load()
    try:
        links.in_node(node, lambda netlink: _attach(netlink, ports, program))
    finally:
        os.close(program)  # the filters hold it now


def _attach(netlink: IPRoute, ports: Iterable[str], program: int) -> None:
    for index in [links.index_of(netlink, port) for port in ports]:
        netlink.tc("replace", "clsact", index=index)
        filter_ = {"fd": program, "name": "rehash", "direct_action": True}
        netlink.tc("replace-filter", "bpf", index=index, parent=INGRESS, prio=1, **filter_)


def _load() -> int:
    """bpf(BPF_PROG_LOAD) and its descriptor; the verifier's words are in the error when it refuses."""
    number = SYS_BPF.get(os.uname().machine)
    if number is None:
        raise LabError(f"cannot load BPF programs on {os.uname().machine}: its system call number is not known here")
    code, licence = ctypes.create_string_buffer(PROGRAM), ctypes.create_string_buffer(b"GPL")
    words = ctypes.create_string_buffer(4096)
    attributes = struct.pack(
        "<IIQQIIQ",
        BPF_PROG_TYPE_SCHED_CLS,
        len(PROGRAM) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        1,
        len(words),
        ctypes.addressof(words),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, BPF_PROG_LOAD, ctypes.c_char_p(attributes), len(attributes))
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot load a BPF program: {os.strerror(error)} {words.value.decode().strip()}".strip())
    return int(descriptor)
