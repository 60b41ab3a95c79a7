"""Our nftables table and the ports of GUE: whether the kernel can have them, and what is missing or different. PURE."""

from collections.abc import Sequence
from dataclasses import dataclass

from lbnode.doctor.finding import Finding
from lbnode.plan import diff
from lbnode.resources import FilterDamage, FouPort, MssClamp, PacketMark, Row, SourceAllow, SynLimit

LOST = {
    SourceAllow.KIND: "everybody reaches the service",
    SynLimit.KIND: "a flood of SYNs gets through",
    PacketMark.KIND: "IPVS does not find the service",
    MssClamp.KIND: "clients are told an MSS that does not fit into the tunnel",
    FilterDamage.KIND: "somebody has changed the table",
    FouPort.KIND: "what the L4 nodes send through GUE is dropped",
}


@dataclass(frozen=True)
class NfTables:
    """Whether the kernel can hold a table of family inet, and whether the program that writes it is installed."""

    kernel: bool
    program: bool


def nf_tables(found: NfTables, wanted: Sequence[Row]) -> tuple[Finding, ...]:
    """Nothing when no row needs it."""
    if not wanted:
        return ()
    if not found.kernel:
        mend = "modprobe nf_tables, or boot a kernel with CONFIG_NF_TABLES_INET (Debian: linux-image-amd64)"
        return (Finding("nf_tables", "fail", f"this kernel has none, and {_kinds(wanted)} need it", mend),)
    if not found.program:
        return (Finding("nf_tables", "fail", "the program nft is not installed", "apt install nftables"),)
    return (Finding("nf_tables", "ok", "kernel and program are there"),)


def check(name: str, actual: Sequence[Row], wanted: Sequence[Row], apply: str) -> tuple[Finding, ...]:
    """One finding for all rows that are right, one for each other; `apply` is the command that makes the node right."""
    changes = diff(actual, wanted).changes
    good = len(wanted) - sum(change.new is not None for change in changes)
    found = [Finding(name, "ok", f"{good} in force: {_kinds(wanted)}")] if good else []
    for change in changes:
        row = change.row
        label = f"{row.KIND} {row.title}"
        if isinstance(row, FilterDamage):
            found.append(Finding(row.KIND, "fail", f"{row.title}: {LOST[row.KIND]}", apply))
        elif change.new is None:
            found.append(Finding(label, "warn", "not wanted any more", apply))
        else:
            differs = " ".join(f"{key} {value}" for key, value in change.differences().items())
            seen = "missing" if change.old is None else differs
            found.append(Finding(label, "fail", f"{seen}: {LOST[row.KIND]}", apply))
    return tuple(found)


def _kinds(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(row.KIND for row in rows))
