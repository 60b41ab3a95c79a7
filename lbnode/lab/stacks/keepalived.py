"""Tiers 2 and 3 with keepalived, ExaBGP's own health check, HAProxy and socat, and nothing of lbnode's.

The stack to compare lbnode with: the tools, files and timers of the published lab of the same three tiers. Its people
take an L4 node out with /etc/lb/disable, and an L7 node with `down` in /etc/lb/agent-check.

- L4: keepalived (IPVS mh, mh-port), ExaBGP with one health check process per family, the VIPs on lo.
- L7: HAProxy, whose health URI the L4 nodes ask; a socat that answers with agent-check; the VIPs on tunnel devices.
- Backends: a socat likewise; for services that go `through: backend` the tunnel with their VIPs.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lbnode.bgp import exabgp as speaker
from lbnode.config.model import IPAddress
from lbnode.lab import ecmp
from lbnode.lab.build import RUN, templates
from lbnode.lab.errors import LabError
from lbnode.lab.programs import EXABGP, HAPROXY, PATHS, in_python
from lbnode.lab.scenarios.stage import Stage
from lbnode.lab.stacks import keepalived_files as files
from lbnode.lab.stacks.keepalived_files import SLOW, Timers
from lbnode.lab.supervisor import Program
from lbnode.lab.wait import wait_until
from lbnode.templates import Templates

KEEPALIVED, AGENT = "keepalived", "agent-check"
CONF = Path("/etc/keepalived/keepalived.conf")
BGP_CONF = Path("/etc/exabgp/exabgp.conf")
PROXY_CONF = Path("/etc/haproxy/haproxy.cfg")
AGENT_CHECK = Path("/etc/lb/agent-check")
DISABLE = Path(files.DISABLE)
PID_FILES = (Path("/run/keepalived.pid"), Path("/run/checkers.pid"))
# Without this module's neighbours, which `exabgp healthcheck` would import to no end, it starts five times faster.
HEALTHCHECK = (sys.executable, "-m", "exabgp.application.healthcheck")
STARTED_S = 60.0
STARTED_PER_NODE_S = 5.0
POLL_S = 0.5

L4_SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/fib_multipath_use_neigh": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/vs/sloppy_tcp": 1,
    "net/ipv4/vs/pmtu_disc": 0,
    "net/ipv4/vs/expire_nodest_conn": 0,
    "net/ipv4/vs/expire_quiescent_template": 0,
}
"""The published lab's. schedule_icmp is not among them."""
RETURN_SYSCTLS = {
    "net/ipv4/fib_multipath_use_neigh": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
}


class Keepalived:
    """A Stack; see `lbnode.lab.stacks`."""

    name = "keepalived"

    def __init__(self, timers: Timers = SLOW) -> None:
        self.timers = timers
        self._stage: Stage | None = None

    @property
    def stage(self) -> Stage:
        if self._stage is None:
            raise LabError("cannot use the keepalived stack: it has not been started")
        return self._stage

    def start(self, stage: Stage, l7: Sequence[str]) -> None:
        for module in ("exabgp.application.main", "exabgp.application.server"):
            importlib.import_module(module)
        self._stage = stage
        for name in stage.backends:
            self._start_backend(name)
        for name in stage.l7:
            self._start_l7(name)
        for name in stage.l4:
            self._start_l4(name, l7)
        deadline_s = STARTED_S + STARTED_PER_NODE_S * len(stage.lab.topology.machines)
        wait_until(lambda: self.uses(l7), deadline_s, "every real server on every L4 node, by keepalived", POLL_S)
        # Not before: health checks that find nobody announce as well, with MED 1000, and turn one after the other.
        for name in stage.l4:
            self._add(name, EXABGP, _exabgp)
        wait_until(lambda: all(map(stage.routed_fully, stage.l4)), deadline_s, "every VIP by every L4 node", POLL_S)

    def uses(self, l7: Sequence[str]) -> bool:
        """Whether every L4 node uses these L7 nodes and all backends, and no others."""
        wanted = self.stage.real_servers(l7)
        for services in self.stage.all_weights().values():
            if any(services.get(service, {}).keys() != addresses for service, addresses in wanted.items()):
                return False
        return True

    def set_l7(self, names: Sequence[str]) -> None:
        """One that does not run reads its file when it is started."""
        for l4 in self.stage.l4:
            self._write_l4(l4, names)
            key = self.stage.key(l4, KEEPALIVED)
            if self.stage.supervisor.pid(key) is not None:
                self.stage.supervisor.kill(key, signal.SIGHUP)

    def l4_out(self, name: str) -> None:
        """The health check announces the VIPs anew, with MED 1000: routers prefer the others while there are any."""
        self.stage.node(name).write(DISABLE, "")

    def l4_back(self, name: str) -> None:
        self.stage.node(name).call(lambda: DISABLE.unlink(missing_ok=True))

    def l7_drain(self, name: str) -> None:
        """`down`, as its operators do: the health URI fails, and every L4 node deletes the L7 node."""
        self.stage.node(name).write(AGENT_CHECK, "down\n")

    def l7_ready(self, name: str) -> None:
        self.stage.node(name).write(AGENT_CHECK, "up\n")

    def l4_programs(self) -> tuple[str, ...]:
        return (KEEPALIVED, EXABGP)

    def l7_programs(self) -> tuple[str, ...]:
        return (HAPROXY, AGENT)

    def restart_control(self, name: str) -> None:
        """keepalived and its checker die at once; what they have left in the kernel is what the next ones find."""
        self.stage.kill(name, KEEPALIVED)

    def _add(self, name: str, program: str, run: Sequence[str] | Callable[[], int | None]) -> None:
        self.stage.supervisor.add(Program(self.stage.node(name), program, run))

    def _start_l4(self, name: str, l7: Sequence[str]) -> None:
        node, cluster = self.stage.node(name), self.stage.lab.topology.cluster
        ecmp.sysctls(node, L4_SYSCTLS)
        vips = [vip for service in cluster.services.values() for vip in service.vips]
        self._ip(name, [f"address add {vip}/{vip.max_prefixlen} dev lo" for vip in dict.fromkeys(vips)])
        self._write_l4(name, l7)
        node.write(BGP_CONF, files.exabgp_conf(self._templates(), cluster, name, self.timers, HEALTHCHECK))
        self._add(name, KEEPALIVED, become_keepalived)

    def _write_l4(self, name: str, l7: Sequence[str]) -> None:
        cluster = self.stage.lab.topology.cluster
        text = files.keepalived_conf(self._templates(), cluster, name, l7, self.timers)
        self.stage.node(name).write(CONF, text)

    def _start_l7(self, name: str) -> None:
        cluster = self.stage.lab.topology.cluster
        through = [service for service in cluster.services.values() if service.through == "l7"]
        self._decapsulate(name, [vip for service in through for vip in service.vips])
        node = self.stage.node(name)
        node.write(AGENT_CHECK, "UP\n")
        node.write(PROXY_CONF, files.haproxy_cfg(self._templates(), cluster, name))
        self._add(name, AGENT, _socat(f"TCP-LISTEN:{cluster.agent_check.port},bind=127.0.0.1"))
        self._add(name, HAPROXY, ["haproxy", "-db", "-f", str(PROXY_CONF)])

    def _start_backend(self, name: str) -> None:
        cluster = self.stage.lab.topology.cluster
        direct = [
            service
            for service in cluster.services.values()
            if service.through == "backend" and name in cluster.members(service.pool)
        ]
        self._decapsulate(name, [vip for service in direct for vip in service.vips])
        self.stage.node(name).write(AGENT_CHECK, "UP\n")
        self._add(name, AGENT, _socat(f"TCP6-LISTEN:{cluster.agent_check.port},ipv6only=0"))

    def _decapsulate(self, name: str, vips: Sequence[IPAddress]) -> None:
        ecmp.sysctls(self.stage.node(name), RETURN_SYSCTLS)
        own = self.stage.lab.topology.cluster.nodes[name]
        lines = []
        for version, device, kind in ((4, "tunlv4", "ipip"), (6, "tunlv6", "ip6tnl mode ip6ip6")):
            family = [vip for vip in dict.fromkeys(vips) if vip.version == version]
            if family:
                lines += [f"link add {device} type {kind} local {own.address(version)}", f"link set {device} up"]
                lines += [f"address add {vip}/{vip.max_prefixlen} dev {device}" for vip in family]
        self._ip(name, lines)

    def _ip(self, name: str, lines: Sequence[str]) -> None:
        """Commands of ip(8), all in one process; from a file, because programs that are forked meanwhile would keep the
        pipe of its input open."""
        node, batch = self.stage.node(name), str(RUN / "ip.batch")
        node.write(batch, "".join(f"{line}\n" for line in lines))
        done = node.run(["ip", "-batch", batch])
        if done.returncode:
            raise LabError(f"cannot set up {name}: {done.stderr.strip()}")

    def _templates(self) -> Templates:
        return templates(self.stage.lab.topology.folder / KEEPALIVED)


def _socat(listen: str) -> list[str]:
    """One process per question."""
    return ["socat", f"{listen},reuseaddr,fork", f"OPEN:{AGENT_CHECK},rdonly"]


def become_keepalived() -> int:
    """Becomes keepalived, checks only, in the foreground. Runs in a forked child.

    Files of an earlier life that was killed would keep it from starting: its processes, which nobody has waited for
    yet, look alive.
    """
    for stale in PID_FILES:
        stale.unlink(missing_ok=True)
    # Line by line: its log would come pages late.
    argv = ["stdbuf", "-oL", KEEPALIVED, "-n", "-l", "-D", "-C", "-f", str(CONF)]
    os.execvp(argv[0], argv)  # noqa: S606 - there is no shell, which is as it should be


def _exabgp() -> int:
    """Runs ExaBGP in this forked child; its health checks are processes of their own."""
    from exabgp.application.main import main

    argv, environment = speaker.command(PATHS)
    return in_python(main, [argv[0], str(BGP_CONF)], environment)
