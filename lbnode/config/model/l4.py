"""What holds on every way from L4 nodes to real servers: probes, IPVS's memory, tunnel, second chance. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.frozen import Model
from lbnode.config.numbers import Between
from lbnode.config.values import Flag, Idle, Seconds, Streak


class Probe(Model):
    """How L4 nodes probe real servers."""

    interval_s: Seconds = Field(1.0, description="Seconds from one probe to the next.")
    timeout_s: Seconds = Field(1.0, description="Seconds after which a probe has failed; it may exceed the interval.")
    rise: Streak = Field(2, description="Successes in a row until a server is up.")
    fall: Streak = Field(2, description="Failures in a row until a server is down.")
    jitter: Annotated[float, Between(0, 0.5)] = Field(
        0.1, description="Share of the interval by which a probe may come early or late, at random."
    )
    via: Literal["tunnel", "direct"] = Field(
        "tunnel",
        description="tunnel: to a VIP, by IPVS and the way that clients' packets go; direct: to the real server's own "
        "address.",
    )


class Ipvs(Model):
    """How long IPVS on the L4 nodes remembers a flow that is idle; it holds for everything that uses IPVS there."""

    tcp_timeout_s: Idle = Field(
        3900,
        description="Seconds for an open TCP flow: longer than the longest idle time the real servers allow, or an "
        "idle flow of a drained server is reset when it speaks again.",
    )
    tcp_fin_timeout_s: Idle = Field(120, description="Seconds for a TCP flow that a side has ended.")
    udp_timeout_s: Idle = Field(300, description="Seconds for a UDP flow.")
    removal_deadline_s: Idle = Field(
        3600,
        description="Seconds that a real server which has left this file keeps its place, without new flows, while it "
        "still has old ones.",
    )


class SecondChance(Model):
    """What becomes of a TCP flow that comes to a real server which does not know it, as when the real servers have
    changed and ECMP then moves it: the real server sends it on to the one that has it. For services with scheduler mh
    and tunnel ipip."""

    enabled: Flag = Field(True, description="Whether real servers send such flows on; they need Linux 5.10.")
    keep_s: Idle = Field(
        86400,
        description="Seconds for which a Maglev table of before is remembered: as long as a connection may last.",
    )


class Tunnel(Model):
    """The way from L4 nodes to real servers."""

    mtu: Annotated[int, Between(1280, 9216)] = Field(1500, description="MTU between L4 nodes and real servers, bytes.")
    only_from_l4: Flag = Field(
        True,
        description="Whether real servers drop tunnelled packets that come from elsewhere than the L4 nodes, or other "
        "real servers that give a flow its second chance.",
    )
    clamp_mss: Flag = Field(True, description="Whether real servers tell clients an MSS that leaves room for a tunnel.")
