"""Who can die where VIPs are announced: the programs between an agent's decision and a router's kernel.

A topology says which there are: ExaBGP and its relay, or the BIRD or FRR of a machine that announces by a route table;
always the agent, and the daemon of a router that is told.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lbnode.lab import frr, routing
from lbnode.lab.errors import LabError
from lbnode.lab.programs import AGENT, BIRD, EXABGP
from lbnode.lab.topology import Machine, Topology

RELAY, ROUTER = "relay", "router"
BGPD = "bgpd"
DEAD_MAN = "dead_man: {after_s: 3, then: withdraw}"

Tables = Mapping[str, Mapping[str, frozenset[str]]]
"""Router -> VIP -> next hops."""


@dataclass(frozen=True)
class Victim:
    """A program of one machine. `kind` is what people call it; `rule` is what the cluster file says besides, there
    alone."""

    kind: str
    machine: str
    program: str
    rule: str = ""

    @property
    def name(self) -> str:
        """For people, the heading of a row."""
        if self.kind == ROUTER:
            return f"{ROUTER} ({self.program})"
        return f"{self.kind}, {self.rule}" if self.rule else self.kind


def victims(topology: Topology, only: Collection[str] = ()) -> list[Victim]:
    """The programs of the first machine that announces, and the daemon of the first router that hears it; those of some
    kinds if any are named. Raises LabError when there is no such kind."""
    machine = topology.machines[topology.announcers[0]]
    found = [Victim(AGENT, machine.name, AGENT)]
    if topology.cluster.bgp.speaker == "exabgp":
        found += [
            Victim(AGENT, machine.name, AGENT, DEAD_MAN),
            Victim(RELAY, machine.name, RELAY),
            Victim(EXABGP, machine.name, EXABGP),
        ]
    found += [Victim(program, machine.name, program) for program in daemons(machine)]
    hearing = next(name for name in topology.routers if _hears(topology, name, machine.name))
    found.append(Victim(ROUTER, hearing, BIRD if topology.machines[hearing].bird else BGPD))
    kinds = list(dict.fromkeys(victim.kind for victim in found))
    if unknown := [kind for kind in only if kind not in kinds]:
        raise LabError(f"cannot harm {', '.join(unknown)}: there are {', '.join(kinds)}")
    return [victim for victim in found if not only or victim.kind in only]


def daemons(machine: Machine) -> tuple[str, ...]:
    """The programs of a machine's BIRD or FRR, as the supervisor knows them."""
    if machine.frr:
        return frr.DAEMONS
    return (BIRD,) if machine.bird else ()


def _hears(topology: Topology, router: str, announcer: str) -> bool:
    return any(session.client and session.name == announcer for session in routing.sessions(topology, router))


def leading_to(machine: str, tables: Tables, name_of: Callable[[str], str]) -> frozenset[str]:
    """The next hops that are a machine, or a router that knows no other way to some VIP than by such. `name_of` says
    whose an address is."""
    hops = {hop for vips in tables.values() for found in vips.values() for hop in found}
    names = {machine}
    while True:
        leading = frozenset(hop for hop in hops if name_of(hop) in names)
        more = {name for name, vips in tables.items() if any(found and found <= leading for found in vips.values())}
        if more <= names:
            return leading
        names |= more
