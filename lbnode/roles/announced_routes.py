"""What a node with BIRD or FRR should have: the VIPs that are good to announce, as routes in a table. PURE.

The speaker knows the peers and the attributes from its own configuration (`lbnode render bird`, `lbnode render frr`);
what changes from moment to moment is whether a VIP is announced, and whether as a first or a second choice.
docs/adr/0009-route-table.md says why so.
"""

from collections.abc import Mapping

from lbnode.config.model import Cluster, IPAddress
from lbnode.resources import ANNOUNCE_LINK, FIRST_CHOICE, SECOND_CHOICE, AnnouncedRoute, Key, Link, Row
from lbnode.roles import leaving
from lbnode.roles.inputs import Desired, Inputs, Verdict


def device(inputs: Inputs) -> Desired:
    """The VRF by which FRR sees the table. No interface belongs to it, so no packet goes by it."""
    row = Link(ANNOUNCE_LINK, "vrf", table=inputs.cluster.bgp.table)
    return Desired((row,), {row.key: "FRR reads the table by it"})


def routes(inputs: Inputs, verdicts: Mapping[IPAddress, Verdict]) -> Desired:
    """One route for every VIP whose verdict is good, when anybody would be told of it."""
    rows: list[Row] = []
    reasons: dict[Key, str] = {}
    for vip, verdict in verdicts.items():
        metric = SECOND_CHOICE if leaving.is_second_choice(inputs, str(vip)) else FIRST_CHOICE
        row = AnnouncedRoute(f"{vip}/{vip.max_prefixlen}", inputs.cluster.bgp.table, metric)
        reasons[row.key] = verdict.reason
        if verdict.good and heard(inputs.cluster, inputs.name, vip):
            rows.append(row)
    return Desired(tuple(rows), reasons, tuple(dict.fromkeys(verdicts.values())))


def heard(cluster: Cluster, name: str, vip: IPAddress) -> bool:
    """Whether a node has a peer that VIPs of this family are announced to."""
    numbered = [peer.nodes for peer in cluster.bgp.peers.values() if peer.address.version == vip.version]
    cables = [cable.nodes for cable in cluster.bgp.unnumbered.values()]
    return any(nodes is None or name in nodes for nodes in (*numbered, *cables))
