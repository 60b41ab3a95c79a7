"""The routing daemons of a lab, of routers, reflectors and servers: their sessions, and their configurations. PURE.

Who speaks with whom follows from two files. A machine that has the address of a peer in the cluster file speaks with
every node that announces to this peer; besides, machines speak with those that topology.yaml calls their neighbors.
"""

from dataclasses import dataclass
from pathlib import Path

from lbnode.lab.topology import Machine, Topology
from lbnode.roles import speakers
from lbnode.templates import Templates

SPEAKERS: tuple[speakers.Speaker, ...] = ("bird", "frr")


@dataclass(frozen=True)
class Session:
    """One BGP session. `name` is the machine at the other end; `client` marks one that announces by lbnode. `own` is
    this side's address, `interface` this side's port. Where the two have no addresses, `version` is 0: the session is
    between their link-local ones, and carries both families."""

    name: str
    version: int
    own: str
    address: str
    asn: int
    client: bool
    interface: str = ""

    @property
    def label(self) -> str:
        """A name for it that every daemon takes."""
        return f"{self.name}_v{self.version or 46}".replace("-", "_").replace(".", "_")


def config(templates: Templates, template: str, topology: Topology, name: str, run: Path) -> str:
    """The configuration of one machine's daemon, from one of the topology's templates. A node of the cluster file may
    also name one of those that `lbnode render` fills in: then it is what that prints."""
    machine = topology.machines[name]
    for speaker in SPEAKERS:
        if machine.role and template == speakers.TEMPLATES[speaker]:
            return speakers.config(speaker, templates, topology.cluster, name)
    return templates.render(
        template,
        node=machine,
        run=run,
        vips=topology.vips,
        asn=own_asn(topology, machine),
        hold_time_s=topology.cluster.bgp.hold_time_s,
        sessions=sessions(topology, name),
    )


def sessions(topology: Topology, name: str) -> list[Session]:
    """Every session of one machine, announcing nodes first, in the order of the files."""
    machine = topology.machines[name]
    announcing = [session for other in topology.announcers for session in _with_announcer(topology, machine, other)]
    neighbors = [
        session
        for other in topology.machines.values()
        if other.name in machine.neighbors or name in other.neighbors
        for session in _with_neighbor(topology, machine, other)
    ]
    return announcing + neighbors


def _with_announcer(topology: Topology, machine: Machine, name: str) -> list[Session]:
    """One session for each peer entry of the cluster file that is the machine, by address or by cable."""
    cluster, own = topology.cluster, machine.every_address
    found = [
        Session(name, 0, "", "", cluster.bgp.local_asn, True, cable.interface)
        for cable in cluster.bgp.unnumbered.values()
        if (cable.nodes is None or name in cable.nodes) and _joins(topology, cable.interface, {machine.name, name})
    ]
    for peer in sorted(cluster.bgp.peers.values(), key=lambda peer: peer.address.version):
        theirs = cluster.nodes[name].address(peer.address.version)
        spoken = peer.nodes is None or name in peer.nodes
        if spoken and str(peer.address) in own and theirs is not None:
            port = next(port.lan for port in machine.ports if str(peer.address) in port.of(peer.address.version))
            found.append(
                Session(name, peer.address.version, str(peer.address), str(theirs), cluster.bgp.local_asn, True, port)
            )
    return found


def _joins(topology: Topology, lan: str, machines: set[str]) -> bool:
    """Whether a LAN is the cable between two machines."""
    return set(topology.lans.get(lan, ())) == machines


def _with_neighbor(topology: Topology, machine: Machine, other: Machine) -> list[Session]:
    """One session of each family on the first LAN that both stand on; one alone where neither has an address."""
    theirs = {port.lan: port for port in other.ports}
    asn = own_asn(topology, other)
    found = {}
    for port in machine.ports:
        if port.lan in theirs and not port.addresses and not theirs[port.lan].addresses:
            return [Session(other.name, 0, "", "", asn, False, port.lan)]
        for version in (4, 6):
            far = theirs[port.lan].of(version) if port.lan in theirs else ()
            if far and port.of(version) and version not in found:
                found[version] = Session(other.name, version, port.of(version)[0], far[0], asn, False, port.lan)
    return [found[version] for version in sorted(found)]


def own_asn(topology: Topology, machine: Machine) -> int:
    """What topology.yaml says, else what the cluster file calls it; machines that neither names speak iBGP with the
    cluster's."""
    own, bgp = machine.every_address, topology.cluster.bgp
    named = [peer.asn for peer in bgp.peers.values() if str(peer.address) in own]
    return machine.asn or (named[0] if named else bgp.local_asn)
