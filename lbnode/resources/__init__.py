"""The rows of desired and actual state. A row is frozen, hashable, and compares by configured fields only.

Every row has a `key` (what it is: two rows with one key are the same thing, perhaps with other settings) and a `rank`
(when it is made: creates go up the ranks, deletes go down). Counters, states that come and go and everything else that
nobody configures have no place here. They stand in modules by what they are rows of; everybody imports them from here.

    rank   row                what it is
      10   Sysctl             one kernel setting of the node (25 when it belongs to a link of ours)
      15   FouPort            a UDP port on which the kernel takes packets out of GUE
      20   Link               a device of ours; its name begins with LINK_PREFIX
      26   Classifier         the program that gives flows a second chance, with its maps, in the kernel
      27   ChanceTable        where flows may live: the Maglev tables of a group of services, now and before
      28   ChanceEndpoint, ChancePeer, ChanceOwn     what the program knows beside that
      30   Address            a VIP on a device of ours
      31   ChanceFilter       the program on a device
      35   Rule               a policy rule: which look-ups ask which routing table
      40   File               a generated file
      45   SourceAllow, SynLimit, PacketMark, MssClamp, TunnelGuard     rules of our own nftables table
           FilterDamage       something else in that table, or missing from it
      50   Running            a program that runs with the generated file
      51   ProxyTable         a map or list that HAProxy holds
      52   Certificate        a certificate that HAProxy holds
      53   PoolServer         a server inside HAProxy
      55   ServerState        the state of one server inside HAProxy that lbnode decides
      58   IpvsTimeouts       IPVS: how long an idle flow keeps its entry
      60   VirtualService     IPVS: VIP, protocol, port
      65   LocalRoute         a failed real server's address: packets for it end on this node
      70   Destination        IPVS: one real server's row under one virtual service
      75   DestinationOrder   IPVS: the order of those rows, which decides the Maglev table
      90   Announcement       one prefix told to one BGP peer
           AnnouncedRoute     one prefix in the routing table that another BGP speaker announces from
"""

from lbnode.resources.announcements import (
    ANNOUNCE_LINK,
    ANNOUNCING,
    FIRST_CHOICE,
    SECOND_CHOICE,
    AnnouncedRoute,
    Announcement,
)
from lbnode.resources.chance import ChanceEndpoint, ChanceFilter, ChanceOwn, ChancePeer, ChanceTable, Classifier
from lbnode.resources.filters import FilterDamage, MssClamp, PacketMark, SourceAllow, SynLimit, TunnelGuard
from lbnode.resources.host import LINK_PREFIX, PROTOCOL, Address, FouPort, Link, Rule, Sysctl
from lbnode.resources.ipvs import (
    LOCAL_TABLE,
    SH_SLOTS,
    Destination,
    DestinationOrder,
    IpvsTimeouts,
    LocalRoute,
    VirtualService,
)
from lbnode.resources.programs import File, Running
from lbnode.resources.proxy import Certificate, PoolServer, ProxyTable, ServerState
from lbnode.resources.row import ANY, PROBE_MARKS, Key, Protocol, Row, ServiceKey

__all__ = [
    "ANNOUNCE_LINK",
    "ANNOUNCING",
    "ANY",
    "FIRST_CHOICE",
    "LINK_PREFIX",
    "LOCAL_TABLE",
    "PROBE_MARKS",
    "PROTOCOL",
    "SECOND_CHOICE",
    "SH_SLOTS",
    "Address",
    "AnnouncedRoute",
    "Announcement",
    "Certificate",
    "ChanceEndpoint",
    "ChanceFilter",
    "ChanceOwn",
    "ChancePeer",
    "ChanceTable",
    "Classifier",
    "Destination",
    "DestinationOrder",
    "File",
    "FilterDamage",
    "FouPort",
    "IpvsTimeouts",
    "Key",
    "Link",
    "LocalRoute",
    "MssClamp",
    "PacketMark",
    "PoolServer",
    "Protocol",
    "ProxyTable",
    "Row",
    "Rule",
    "Running",
    "ServerState",
    "ServiceKey",
    "SourceAllow",
    "SynLimit",
    "Sysctl",
    "TunnelGuard",
    "VirtualService",
]
