"""What the cluster file says of BGP: the peers, what may be announced, and with which attributes. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.communities import Community, LargeCommunity
from lbnode.config.frozen import Model
from lbnode.config.inorder import InOrder
from lbnode.config.leaving import Damping, DeadMan, Leaving
from lbnode.config.numbers import Between
from lbnode.config.values import Asn, FilePath, Flag, Interface, IPAddress, Name, Named, Prefix

Number = Annotated[int, Between(0, 4294967295)]
HoldTime = Annotated[int, Between(3, 65535)]


class Attributes(Model):
    """What a VIP is announced with. Of the same key in several places, the node's counts before the service's, that
    before the peer's, that before the cluster's; lists add up."""

    next_hop: IPAddress | None = Field(
        None, description="Where routers send the packets, for VIPs of its family; the node's own address if left out."
    )
    med: Number | None = Field(None, description="Multi-exit discriminator: a neighbouring AS prefers the lowest.")
    local_preference: Number | None = Field(
        None, description="The own AS prefers the highest (100 if left out); it is told to iBGP peers only."
    )
    communities: tuple[Community, ...] = Field(
        (), description="Standard communities (RFC 1997), as `65001:100` or by a well-known name."
    )
    large_communities: tuple[LargeCommunity, ...] = Field((), description="Large communities (RFC 8092).")
    prepend: Annotated[int, Between(0, 16)] | None = Field(
        None, description="How often the own AS is put in front of the path once more: routers prefer short paths."
    )


class Bfd(Model):
    """How soon BFD finds the other end of a BGP session dead."""

    interval_ms: Annotated[int, Between(10, 60000)] = Field(
        200, description="Milliseconds from one packet to the next, both ways."
    )
    multiplier: Annotated[int, Between(2, 255)] = Field(3, description="It is dead when so many are missing.")


class Peer(Model):
    """One BGP peer. It carries the family of its address."""

    address: IPAddress = Field(description="The peer's address; its family is the family announced to it.")
    asn: Asn = Field(description="The peer's autonomous system; the own one makes it an iBGP peer.")
    nodes: tuple[Name, ...] | None = Field(
        None, min_length=1, description="The nodes that speak with it; all that announce if left out."
    )
    local_address: IPAddress | None = Field(
        None, description="Where the session begins; the node's own address of the family if left out."
    )
    multihop: Annotated[int, Between(2, 255)] | None = Field(
        None, description="TTL of packets to the peer: it may be so many hops away; the kernel's own if left out."
    )
    password_file: FilePath | None = Field(
        None, description="A file that only its owner and group may read, with the TCP MD5 password (RFC 2385)."
    )
    ttl_security: Annotated[int, Between(1, 254)] | None = Field(
        None, description="Packets from further away than so many hops are dropped (RFC 5082); 1: the own link."
    )
    passive: Flag = Field(False, description="Whether the peer connects to the node, on port 179.")
    hold_time_s: HoldTime | None = Field(None, description="BGP hold time, seconds; the cluster's if left out.")
    add_path: Flag = Field(False, description="Whether routes are sent with a path identifier (RFC 7911).")
    graceful_restart_s: Annotated[int, Between(1, 4095)] | None = Field(
        None, description="For so many seconds the peer keeps the routes of a session that broke (RFC 4724)."
    )
    bfd: Flag = Field(False, description="Whether its silence is noticed by BFD (RFC 5880); with speaker: table.")
    attributes: Attributes = Field(Attributes(), description="What this peer is told besides.")

    def speaks_with(self, node_name: str) -> bool:
        return self.nodes is None or node_name in self.nodes


class Unnumbered(Model):
    """A BGP peer at the other end of a cable, without addresses (RFC 8950). It carries both families; of what it tells,
    a default route is taken."""

    interface: Interface = Field(description="The node's interface; the peer is whoever answers there.")
    asn: Asn | None = Field(None, description="The peer's autonomous system; any but the own one if left out.")
    nodes: tuple[Name, ...] | None = Field(
        None, min_length=1, description="The nodes that speak with it; all that announce if left out."
    )
    hold_time_s: HoldTime | None = Field(None, description="BGP hold time, seconds; the cluster's if left out.")
    bfd: Flag = Field(True, description="Whether its silence is noticed by BFD (RFC 5880).")
    attributes: Attributes = Field(Attributes(), description="What this peer is told besides.")

    def speaks_with(self, node_name: str) -> bool:
        return self.nodes is None or node_name in self.nodes


class Bgp(Model):
    """How VIPs are announced."""

    local_asn: Asn = Field(description="The autonomous system of the nodes that announce.")
    hold_time_s: HoldTime = Field(9, description="BGP hold time, seconds.")
    speaker: Literal["exabgp", "table"] = Field(
        "exabgp",
        description="exabgp: lbnode's own; table: routes stand in a kernel table, which BIRD or FRR reads.",
    )
    table: Annotated[int, Between(1, 252)] = Field(78, description="That table, with speaker: table; not 77.")
    announceable: tuple[Prefix, ...] | None = Field(
        None, min_length=1, description="Nothing outside these networks is ever announced; the VIPs if left out."
    )
    attributes: Attributes = Field(Attributes(), description="What every peer is told.")
    dead_man: DeadMan = Field(DeadMan(), description="What happens when the agent gives no sign of life any more.")
    leaving: Leaving = Field(Leaving(), description="How a node that is taken out of service stops announcing.")
    on_stop: Literal["keep", "withdraw"] = Field(
        "keep",
        description="What an agent does that is told to stop: keep: nothing; withdraw: it leaves first, in order.",
    )
    damping: Damping = Field(Damping(), description="What happens to a VIP that comes and goes.")
    bfd: Bfd = Field(Bfd(), description="Timers of BFD, for the peers that have it.")
    ecmp_limit: Annotated[int, Between(1, 4096)] | None = Field(
        None,
        description="How many next hops the routers hold for one VIP; `lbnode check` and `doctor` warn when more nodes "
        "announce it. Left out: they warn above 16, which many routers hold unless told otherwise.",
    )
    peers: Named[Peer] = Field(default_factory=InOrder, description="The routers or route reflectors, by name.")
    unnumbered: Named[Unnumbered] = Field(
        default_factory=InOrder, description="Routers at the other end of a cable, by name; with speaker: table."
    )
