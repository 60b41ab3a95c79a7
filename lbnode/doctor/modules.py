"""Kernel modules: which ones a node's rows need, and whether the kernel has them. PURE.

A module that can be loaded is as good as a loaded one: lbnode loads ip_vs itself, and the kernel loads a scheduler or a
type of device when it is first asked for it.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from lbnode.doctor.finding import Finding
from lbnode.resources import FouPort, Link, MssClamp, PacketMark, Row, SourceAllow, SynLimit, VirtualService

State = Literal["loaded", "built-in", "loadable", "missing", "unknown"]
LINKS = {
    "dummy": "dummy",
    "ipip": "ipip",
    "ip6tnl": "ip6_tunnel",
    "gre": "ip_gre",
    "ip6gre": "ip6_gre",
    "vrf": "vrf",
}


def needed(rows: Iterable[Row]) -> tuple[str, ...]:
    """The modules behind the rows, in the order in which they are asked for."""
    names: dict[str, None] = {}
    for row in rows:
        if isinstance(row, VirtualService):
            names |= {"ip_vs": None, f"ip_vs_{row.scheduler}": None}
        elif isinstance(row, Link):
            names[LINKS[row.type]] = None
        elif isinstance(row, FouPort):
            names["fou"] = None
        elif isinstance(row, SourceAllow | SynLimit | PacketMark | MssClamp):
            names["nf_tables"] = None
    return tuple(names)


def check(states: Mapping[str, State], release: str, locked: bool = False) -> tuple[Finding, ...]:
    """One finding for all that are there, one for each other. `release` is the kernel's; `locked`: it loads no more
    modules until the next boot (kernel.modules_disabled)."""
    good = ("loaded", "built-in") if locked else ("loaded", "built-in", "loadable")
    there = [name for name, state in states.items() if state in good]
    words = ", ".join(f"{name} {states[name]}" for name in there)
    found = [Finding("modules", "ok", words)] if there else []
    return (*found, *(_bad(name, state, release) for name, state in states.items() if name not in there))


def _bad(name: str, state: State, release: str) -> Finding:
    label = f"module {name}"
    if state == "loadable":
        mend = f"put {name} into /etc/modules-load.d/ and reboot, or leave kernel.modules_disabled at 0"
        return Finding(label, "fail", "not loaded, and kernel.modules_disabled forbids to load it", mend)
    if state == "missing":
        mend = f"boot a kernel that has {name} (Debian: linux-image-amd64)"
        return Finding(label, "fail", f"kernel {release} has none", mend)
    mend = f"make /lib/modules/{release} visible here, or load it where it is: modprobe {name}"
    return Finding(label, "unknown", f"not loaded, and there is no /lib/modules/{release} to look in", mend)
