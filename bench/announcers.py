"""Who announces a VIP while its service is well and nobody has taken the node out: lbnode, by ExaBGP and by BIRD, and
ExaBGP's own health check.

Each has a node of its own on the LAN of one router, a web server, the file /etc/lb/disable, and a BGP speaker with the
same hold time. A supervisor plays systemd for all of them.
"""

import json
import signal
import socket
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from lbnode import templates
from lbnode.config.load import parse
from lbnode.lab import links
from lbnode.lab.namespaces import Node
from lbnode.lab.programs import exabgp as start_exabgp
from lbnode.lab.programs import lbnode
from lbnode.lab.supervisor import Program, Supervisor
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths
from lbnode.roles import speakers

PATHS = Paths()
ROUTER, ASN, PEER_ASN, HOLD_TIME_S = "192.0.2.1", 65010, 65000, 6
SPEAKER, WEB, AGENT = "speaker", "web", "agent"
BIRD_CONF, BIRD_CONTROL = Path("/run/bird.conf"), Path("/run/bird.ctl")
CHECK = Path("/etc/lb/check")
CLUSTER = """\
bgp:
  local_asn: {asn}
  hold_time_s: {hold_time_s}
  speaker: {speaker}
  leaving: {{step: {step}}}
  damping: {{flaps: 0}} # twenty times in a row is what is measured
  peers:
    r: {{address: {router}, asn: {peer_asn}{more}}}
nodes:
  ours: {{role: backend, ipv4: {own}}}
pools:
  web: {{check: {{type: tcp}}}}
services:
  www: {{vips: [{vip}], pool: web, through: backend, announce: backend}}
"""
NEIGHBOR = """\
neighbor {router} {{
  router-id {own}; local-address {own}; local-as {asn}; peer-as {peer_asn}; hold-time {hold_time_s};
  family {{ ipv4 unicast; }}
  {more}
}}
"""
HEALTHCHECK = """\
process watch {{
  run {python} -m exabgp.application.healthcheck --no-syslog --name watch --no-ip-setup --ip {vip} --increase 0
 --interval {interval_s} --withdraw-on-down --disable {disable} --cmd {check};
  encoder text;
}}
""".replace("\n --interval", " --interval")


@dataclass(frozen=True)
class Place:
    """A node, where it stands in the LAN, and the VIP it announces."""

    name: str
    node: Node
    own: str
    vip: str


class Side(ABC):
    """What all have: a web server, ExaBGP, a file; and somebody who decides."""

    def __init__(self, place: Place, supervisor: Supervisor) -> None:
        self.place, self.supervisor = place, supervisor
        links.address(place.node, "lo", f"{place.vip}/32")
        supervisor.add(Program(place.node, WEB, serve))

    def key(self, program: str) -> str:
        return f"{self.place.node.name}/{program}"

    def disable(self) -> None:
        self.place.node.write(PATHS.disable, "")

    def enable(self) -> None:
        self.place.node.call(PATHS.disable.unlink)

    def fail(self) -> None:
        self.supervisor.stop(self.key(WEB))

    def recover(self) -> None:
        self.supervisor.start(self.key(WEB))

    @abstractmethod
    def start(self) -> None:
        """Its VIP is to be announced."""

    @abstractmethod
    def kill_decider(self) -> None:
        """SIGKILL to the agent, or the health check, and until it is there again."""

    def kill_speaker(self) -> None:
        """SIGKILL, and until it is there again."""
        old = self.supervisor.kill(self.key(SPEAKER))
        wait_until(lambda: self.supervisor.pid(self.key(SPEAKER)) not in (None, old), 60, "the speaker again")


class Ours(Side):
    """lbnode's agent and its relay."""

    speaker, more = "exabgp", ""
    """As in the cluster file; `more`: of the peer."""

    def start(self) -> None:
        self.configure("none")
        self.start_speaker()
        argv = ["agent", "--role", "backend", "--node", "ours"]
        self.supervisor.add(Program(self.place.node, AGENT, lambda: lbnode(argv)))

    def start_speaker(self) -> None:
        self.supervisor.add(Program(self.place.node, SPEAKER, start_exabgp, needs=str(PATHS.exabgp_config)))

    def configure(self, step: str) -> None:
        """`step`: as in the cluster file."""
        self.place.node.write(PATHS.cluster_file, self.cluster_file(step))

    def cluster_file(self, step: str) -> str:
        values = {"asn": ASN, "peer_asn": PEER_ASN, "hold_time_s": HOLD_TIME_S, "router": ROUTER, "step": step}
        values |= {"speaker": self.speaker, "more": self.more, "own": self.place.own, "vip": self.place.vip}
        return CLUSTER.format(**values)

    def kill_decider(self) -> None:
        before = self._beat()
        self.supervisor.kill(self.key(AGENT))
        wait_until(lambda: self._beat() > before, 60, "a sign of life of the agent", 0.05)

    def _beat(self) -> float:
        try:
            return float(json.loads(self.place.node.read(PATHS.bgp_heartbeat))["at"])
        except (OSError, ValueError):
            return 0.0


class OursByTable(Ours):
    """lbnode's agent, and BIRD with BFD, as `lbnode render bird` has it."""

    speaker, more = "table", ", bfd: true"

    def start_speaker(self) -> None:
        node, cluster = self.place.node, parse(self.cluster_file("none"))
        node.write(BIRD_CONF, speakers.config("bird", templates.load(), cluster, "ours"))
        argv = ["bird", "-f", "-c", str(BIRD_CONF), "-s", str(BIRD_CONTROL)]
        self.supervisor.add(Program(node, SPEAKER, argv))

    def kill_decider(self) -> None:
        before = self._begun()
        self.supervisor.kill(self.key(AGENT))
        wait_until(lambda: self._begun() not in (0, before), 60, "the agent again", 0.05)

    def _begun(self) -> int:
        """When the agent that runs has made its socket; 0 when there is none."""
        try:
            return self.place.node.call(lambda: PATHS.agent_socket.stat().st_mtime_ns)
        except FileNotFoundError:
            return 0


class Healthcheck(Side):
    """ExaBGP with its own health check, at one interval; everything else as it comes."""

    def __init__(self, place: Place, supervisor: Supervisor, interval_s: int) -> None:
        super().__init__(place, supervisor)
        self.interval_s = interval_s

    def start(self) -> None:
        node, place = self.place.node, self.place
        node.write(CHECK, f"#!/bin/bash\nexec 3<>/dev/tcp/{place.vip}/80\n")
        node.call(lambda: CHECK.chmod(0o755))
        watch = HEALTHCHECK.format(
            python=sys.executable, vip=place.vip, interval_s=self.interval_s, disable=PATHS.disable, check=CHECK
        )
        node.write(PATHS.exabgp_config, watch + neighbor(place.own, "api { processes [ watch ]; }"))
        self.supervisor.add(Program(node, SPEAKER, start_exabgp))

    def kill_decider(self) -> None:
        old = self._decider()
        self.place.node.run(["kill", "-9", old], check=True)
        wait_until(lambda: self._decider() not in ("", old), 60, "the health check again", 0.05)

    def _decider(self) -> str:
        return self.place.node.run(["pgrep", "-o", "-f", "exabgp.application.healthcheck"]).stdout.strip()


def neighbor(own: str, more: str) -> str:
    """The session with the router."""
    values = {"asn": ASN, "peer_asn": PEER_ASN, "hold_time_s": HOLD_TIME_S, "router": ROUTER}
    return NEIGHBOR.format(own=own, more=more, **values)


def start_constant(place: Place, supervisor: Supervisor) -> None:
    """A node that announces its VIP for ever: another choice for routers."""
    route = f"static {{ route {place.vip}/32 next-hop self; }}"
    place.node.write(PATHS.exabgp_config, neighbor(place.own, route))
    supervisor.add(Program(place.node, SPEAKER, start_exabgp))


def serve() -> int:
    """A server at port 80 that takes connections and closes them."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with socket.create_server(("", 80), backlog=64) as listening:
        while True:
            listening.accept()[0].close()
