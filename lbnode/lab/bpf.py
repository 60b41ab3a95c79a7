"""Small BPF programs on the interfaces of a lab's nodes, loaded without a compiler: a few instructions each.

Every lab's kernel can run them (`lbnode.lab.kernel` tries), user-mode-linux by its interpreter.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pyroute2 import IPRoute

from lbnode.lab import links
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_TYPE_SCHED_CLS = 3
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), likewise TC_H_MIN_EGRESS


@dataclass(frozen=True)
class Program:
    """A classifier's instructions: (code, registers, immediate) each. Of the programs on an interface those with a low
    `priority` run first."""

    name: str
    priority: int
    instructions: tuple[tuple[int, int, int], ...]

    @property
    def text(self) -> bytes:
        return b"".join(struct.pack("<BBhi", code, registers, 0, value) for code, registers, value in self.instructions)


def attach(node: Node, ports: Iterable[str], program: Program, parents: Iterable[int] = (INGRESS,)) -> None:
    """Runs a program for every packet that comes in by (INGRESS) or leaves by (EGRESS) some interfaces of a node.

    Raises OSError, NetlinkError.
    """
    descriptor = _load(program)
    places = [(port, parent) for port in ports for parent in parents]

    def add(netlink: IPRoute) -> None:
        for port, parent in places:
            index = links.index_of(netlink, port)
            netlink.tc("replace", "clsact", index=index)
            filter_ = {"fd": descriptor, "name": program.name, "direct_action": True}
            netlink.tc("replace-filter", "bpf", index=index, parent=parent, prio=program.priority, **filter_)

    try:
        links.in_node(node, add)
    finally:
        os.close(descriptor)  # the filters hold it now


def detach(node: Node, ports: Iterable[str], program: Program, parents: Iterable[int] = (INGRESS,)) -> None:
    """Ends what `attach` began. Raises NetlinkError."""
    places = [(port, parent) for port in ports for parent in parents]

    def remove(netlink: IPRoute) -> None:
        for port, parent in places:
            index = links.index_of(netlink, port)
            netlink.tc("del-filter", index=index, parent=parent, info=program.priority << 16)

    links.in_node(node, remove)


def _load(program: Program) -> int:
    """bpf(BPF_PROG_LOAD) and its descriptor; the verifier's words are in the error when it refuses."""
    number = SYS_BPF.get(os.uname().machine)
    if number is None:
        raise LabError(f"cannot load BPF programs on {os.uname().machine}: its system call number is not known here")
    code, licence = ctypes.create_string_buffer(program.text), ctypes.create_string_buffer(b"GPL")
    words = ctypes.create_string_buffer(4096)
    attributes = struct.pack(
        "<IIQQIIQ",
        BPF_PROG_TYPE_SCHED_CLS,
        len(program.instructions),
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
