"""BIRD's configuration on a lab's routers and route reflectors, from the topology and the cluster file. PURE.

Who speaks to whom follows from the cluster file's peers: machines that have a peer's address talk to every L4 node;
routers that have none get their routes from the machines that do, which are then reflectors.
"""

from dataclasses import dataclass
from pathlib import Path

from lbnode.lab.topology import Machine, Topology
from lbnode.templates import Templates


@dataclass(frozen=True)
class Session:
    """One BGP session. `client` marks an L4 node at the other end; `own` is this side's address."""

    label: str
    version: int
    own: str
    address: str
    asn: int
    client: bool


def config(templates: Templates, topology: Topology, name: str, run: Path) -> str:
    """The configuration of one machine, from the template that the topology names for it."""
    machine = topology.machines[name]
    return templates.render(
        machine.bird,
        node=machine,
        run=run,
        vips=topology.vips,
        asn=_own_asn(topology, machine),
        hold_time_s=topology.cluster.bgp.hold_time_s,
        sessions=sessions(topology, name),
    )


def sessions(topology: Topology, name: str) -> list[Session]:
    """Every session of one machine, L4 nodes first, in the order of the files."""
    bgp = topology.cluster.bgp
    machine = topology.machines[name]
    peered = _is_peer(topology, machine)
    found = []
    for other in topology.machines.values():
        is_l4 = other.role == "l4" and peered
        if not is_l4 and not (other.bird and _is_peer(topology, other) != peered):
            continue
        asn = bgp.local_asn if is_l4 else _own_asn(topology, other)
        for version in (4, 6):
            if near := _shared(machine, other, version):
                label = f"{other.name}_v{version}".replace("-", "_").replace(".", "_")
                found.append(Session(label, version, *near, asn, is_l4))
    return sorted(found, key=lambda session: not session.client)


def _is_peer(topology: Topology, machine: Machine) -> bool:
    own = machine.addresses(4) + machine.addresses(6)
    return any(str(peer.address) in own for peer in topology.cluster.bgp.peers.values())


def _own_asn(topology: Topology, machine: Machine) -> int:
    """What the cluster file calls it; machines it does not name speak iBGP with the reflectors."""
    own = machine.addresses(4) + machine.addresses(6)
    named = [peer.asn for peer in topology.cluster.bgp.peers.values() if str(peer.address) in own]
    return named[0] if named else topology.cluster.bgp.local_asn


def _shared(machine: Machine, other: Machine, version: int) -> tuple[str, str] | None:
    """Both ends' addresses of one family on a LAN that both stand on."""
    theirs = {port.lan: port for port in other.ports}
    for port in machine.ports:
        if port.lan in theirs:
            mine, yours = port.of(version), theirs[port.lan].of(version)
            if mine and yours:
                return mine[0], yours[0]
    return None
