"""BGP by a route table: whether BIRD or FRR is there to read it, and can do what the cluster file wants of it. Their
sessions they show themselves. PURE."""

from collections.abc import Collection, Iterable

from lbnode.config.model import Cluster
from lbnode.doctor.finding import Finding

PROGRAMS = {"bird": "BIRD", "bgpd": "FRR", "bfdd": "FRR's bfdd"}
"""Processes by the name that the kernel has for them."""
_RENDER = "put in place what `lbnode render bird` or `lbnode render frr` prints, and start the program"
_BFDD = "bfdd=yes in /etc/frr/daemons, and systemctl restart frr"


def speakers(cluster: Cluster, node: str, running: Collection[str]) -> tuple[Finding, ...]:
    """`running`: those of PROGRAMS that run."""
    label, table = "bgp speaker", cluster.bgp.table
    there = [PROGRAMS[name] for name in ("bird", "bgpd") if name in running]
    if not there:
        seen = f"neither BIRD nor FRR runs: nobody announces what stands in table {table}"
        return (Finding(label, "fail", seen, _RENDER),)
    found = [Finding(label, "ok", f"{there[0]} runs, for table {table}")]
    if len(there) > 1:
        seen = f"BIRD and FRR both run: if both read table {table}, peers hear everything twice"
        found = [Finding(label, "warn", seen, "let one of them announce")]
    bgp = cluster.bgp
    peers = [(name, peer.nodes, peer.bfd) for name, peer in bgp.peers.items()]
    cables = [(name, cable.nodes, cable.bfd) for name, cable in bgp.unnumbered.items()]
    with_bfd = [name for name, nodes, bfd in (*peers, *cables) if bfd and (nodes is None or node in nodes)]
    if with_bfd and "bgpd" in running and "bfdd" not in running:
        seen = f"FRR's bfdd does not run: the silence of {', '.join(with_bfd)} is noticed after the hold time"
        found.append(Finding("bfd", "fail", seen, _BFDD))
    unheard = [name for name, nodes, _ in cables if nodes is None or node in nodes]
    if unheard and "bgpd" not in running:
        seen = f"BIRD does not speak with {', '.join(unheard)}: it knows peers by their addresses"
        found.append(Finding("unnumbered", "fail", seen, "give them addresses under bgp.peers, or run FRR"))
    return tuple(found)


def strangers(foreign: Iterable[str]) -> tuple[Finding, ...]:
    """What others have put into the table; `foreign` as its driver tells."""
    mend = "remove it when it is a mistake; lbnode does not touch what is not its"
    return tuple(Finding("left alone", "warn", f"{line}: the speaker may announce it", mend) for line in foreign)
