"""What runs on the machines of a lab: routing daemons, web servers, HAProxy, ExaBGP, and on cluster nodes the agent.

Python programs are forks of the lab, which has imported them once: starting Python costs seconds under user-mode-linux.
They get the command line and environment that a fresh process would get.
"""

import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lbnode.lab import dns, echo, frr, web
from lbnode.lab.build import BIRD_CONF, BIRD_SOCKET, DNS_FILES, FRR_CONF, RUN, WEB_CONF, Lab
from lbnode.lab.namespaces import Node
from lbnode.lab.served import echo_ports
from lbnode.lab.supervisor import Program, Supervisor
from lbnode.paths import Paths

PATHS = Paths()
AGENT, HAPROXY, EXABGP, BIRD, WEB, DNS, ECHO = "agent", "haproxy", "exabgp", "bird", "web", "dns", "echo"
NEEDS_GENERATED: dict[str, str] = {HAPROXY: str(PATHS.haproxy_config), EXABGP: str(PATHS.exabgp_config)}

PRELOADED = (
    "aiohttp",
    "exabgp.application.main",
    "exabgp.application.server",
    "jinja2",
    "lbnode.agent.loop",
    "lbnode.bgp.driver",
    "lbnode.chance.driver",
    "lbnode.chance.kernel",
    "lbnode.cli.agent",
    "lbnode.cli.apply",
    "lbnode.cli.check",
    "lbnode.cli.plan",
    "lbnode.cli.status",
    "lbnode.config.load",
    "lbnode.haproxy.driver",
    "lbnode.ipvs.driver",
    "lbnode.net.links",
    "lbnode.net.sysctl",
    "lbnode.roles.backend",
    "lbnode.roles.l4",
    "lbnode.roles.l7",
    "pyroute2",
)


def start_network(lab: Lab, supervisor: Supervisor) -> None:
    """Routing daemons, web and DNS servers, echo servers for what goes by UDP: what is there before lbnode comes."""
    for name, machine in lab.topology.machines.items():
        if machine.bird:
            argv = ["bird", "-f", "-c", str(BIRD_CONF), "-s", str(BIRD_SOCKET)]
            supervisor.add(Program(lab.nodes[name], BIRD, argv))
        if machine.frr:
            for daemon in frr.DAEMONS:
                argv = frr.command(daemon, FRR_CONF)
                supervisor.add(Program(lab.nodes[name], daemon, argv, needs=frr.needs(daemon)))
        if machine.role == "backend":
            supervisor.add(Program(lab.nodes[name], WEB, lambda: web.become(WEB_CONF, RUN)))
    for name, ports in echo_ports(lab.topology.cluster).items():
        supervisor.add(Program(lab.nodes[name], ECHO, partial(echo.serve, name, ports)))
    for name in dns.servers(lab.topology):
        supervisor.add(Program(lab.nodes[name], DNS, dns.command(DNS_FILES)))


def start_nodes(lab: Lab, supervisor: Supervisor, agents: bool = True) -> None:
    """HAProxy and ExaBGP, which begin when their files are there, and the agents, which write those."""
    preload()
    for name, machine in lab.topology.machines.items():
        node = lab.nodes[name]
        if machine.role == "l7":
            supervisor.add(Program(node, HAPROXY, haproxy, needs=NEEDS_GENERATED[HAPROXY]))
        if machine.announces and lab.topology.cluster.bgp.speaker == "exabgp":
            supervisor.add(Program(node, EXABGP, exabgp, needs=NEEDS_GENERATED[EXABGP]))
    if agents:
        start_agents(lab, supervisor)


def start_agents(lab: Lab, supervisor: Supervisor) -> None:
    """The agent of every node in the cluster file."""
    for name, machine in lab.topology.machines.items():
        if machine.role:
            supervisor.add(_agent(lab.nodes[name], machine.role))


def _agent(node: Node, role: str) -> Program:
    return Program(node, AGENT, lambda: lbnode(["agent", "--role", role]))


def lbnode(arguments: Sequence[str]) -> int:
    """One lbnode command in this process; returns its exit status."""
    from lbnode.cli import run

    return run(list(arguments))


def haproxy() -> int:
    """Becomes HAProxy, as its systemd unit starts it. Runs in a forked child."""
    from lbnode.haproxy import program as proxy

    proxy.prepare(PATHS)
    argv = proxy.command(PATHS)
    os.execvp(argv[0], argv)  # noqa: S606 - there is no shell, which is as it should be


def exabgp() -> int:
    """Runs ExaBGP in this forked child."""
    from lbnode.bgp import exabgp as speaker

    argv, environment = speaker.command(PATHS)
    return in_python(_exabgp_main, argv, environment)


def in_python(main: Callable[[], int | None], argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Calls a Python program's entry point as its script would."""
    os.environ.update(environment)
    sys.argv = list(argv)
    return main() or 0


def _exabgp_main() -> int | None:
    from exabgp.application.main import main

    status: int | None = main()
    return status


def preload() -> None:
    """Imports what the forks will need, and keeps the garbage collector from touching it in every one of them."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
