"""What is measured on: a cluster of S services with D real servers each, as rows, as a cluster file, and as machines.

    ours (the L4 node, 192.0.2.250) ---- veth ---- servers (192.0.2.1 ... D: health URI and agent-check answer)

The same S x D rules come out of the rows, of the cluster file, and of the peers' configurations (`bench.peers`).
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lbnode.agent import control
from lbnode.bgp import exabgp
from lbnode.bgp.told import read_told
from lbnode.lab import links
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.maintenance import responder
from lbnode.maintenance.state import READY
from lbnode.node import Identity, desired_state, load_cluster
from lbnode.paths import Paths
from lbnode.resources import Destination, DestinationOrder, File, Row, ServiceKey, VirtualService
from lbnode.roles.inputs import Desired

NODE, OWN = "l4-1", "192.0.2.250"
PATHS = Paths()
IDENTITY = Identity(NODE, "l4", PATHS)
VIPS = 100
"""Services beyond that many share VIPs, by port."""
WEIGHT = 100
HEAD = f"""\
bgp:
  local_asn: 64501
  peers:
    r1: {{address: 192.0.2.251, asn: 64500}}
probe: {{interval_s: 60, timeout_s: 10, via: direct}}
nodes:
  {NODE}: {{role: l4, ipv4: {OWN}}}
  s1: {{role: backend, ipv4: 192.0.2.252}}
"""


@dataclass(frozen=True)
class Size:
    """`services` x `destinations`."""

    services: int
    destinations: int

    def __str__(self) -> str:
        return f"{self.services:,} x {self.destinations}"

    @property
    def addresses(self) -> list[str]:
        return [f"192.0.2.{number}" for number in range(1, self.destinations + 1)]

    @property
    def keys(self) -> list[ServiceKey]:
        return [
            ServiceKey(f"198.51.100.{number % VIPS + 1}", "tcp", 443 + number // VIPS)
            for number in range(self.services)
        ]


def rows(size: Size, weights: dict[str, int] | None = None) -> tuple[Row, ...]:
    """The wanted IPVS rows; `weights` of real servers that have another than the usual one."""
    addresses, found = tuple(size.addresses), list[Row]()
    for key in size.keys:
        found += [VirtualService(key), DestinationOrder(key, addresses)]
        for serial, address in enumerate(addresses, start=1):
            weight = (weights or {}).get(address, WEIGHT)
            found.append(Destination(key, address, weight, weight, serial))
    return tuple(found)


def cluster_file(size: Size, weights: dict[str, int] | None = None) -> str:
    """The text of a cluster file that makes the same rows, one service a VIP with all its ports."""
    lines = [HEAD]
    for address in size.addresses:
        weight = (weights or {}).get(address, WEIGHT)
        lines.append(f"  l7-{address.rpartition('.')[2]}: {{role: l7, ipv4: {address}, weight: {weight}}}\n")
    lines.append("services:\n")
    ports: dict[str, list[int]] = {}
    for key in size.keys:
        ports.setdefault(key.vip, []).append(key.port)
    for number, (vip, its) in enumerate(ports.items(), start=1):
        lines.append(f"  s{number}: {{vips: [{vip}], ports: {its}, pool: web}}\n")
    return "".join([*lines, "pools:\n  web: {}\n"])


@contextmanager
def standing(size: Size, log: Path) -> Iterator[Node]:
    """The L4 node of a cluster whose real servers answer, as it is after a reboot: the cluster file and ExaBGP's
    configuration are there, ExaBGP runs, the kernel knows nothing."""
    with Node("servers") as servers, Node(NODE) as ours:
        links.connect(
            Port(ours, "eth0", (f"{OWN}/24",)), Port(servers, "eth0", tuple(f"{a}/24" for a in size.addresses))
        )
        servers.fork(_answer, log)
        ours.write(PATHS.cluster_file, cluster_file(size))
        ours.call(_write_generated)
        argv, environment = exabgp.command(PATHS)
        ours.spawn(["env", *(f"{name}={value}" for name, value in environment.items()), *argv], log)
        wait_until(lambda: ours.call(lambda: read_told(PATHS)), 60, "ExaBGP")
        yield ours


def lbnode(*arguments: str) -> list[str]:
    """One lbnode command."""
    return [sys.executable, "-m", "lbnode", *arguments]


def apply_command() -> list[str]:
    return lbnode("apply", "--role", "l4", "--node", NODE)


def run(node: Node, argv: Sequence[str]) -> None:
    """Runs a program to its end; what it says goes nowhere unless it fails."""
    process = node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate()
    node.reaped(process.pid)
    if process.returncode:
        raise RuntimeError(
            f"cannot measure: {' '.join(argv)} ended with {process.returncode}: {output.decode()[-800:]}"
        )


def desired() -> Desired:
    """What the cluster file of the calling thread's node asks for, with every server up."""
    return desired_state(IDENTITY, load_cluster(IDENTITY), READY, {})


def start_agent(node: Node, log: Path) -> int:
    """Starts the agent; returns its pid after its first pass."""
    pid = node.spawn(lbnode("agent", "--role", "l4", "--node", NODE), log).pid

    def passed() -> bool:
        status = control.ask(PATHS, "status", 60)
        return bool(status and status["last_pass"])

    wait_until(lambda: node.call(passed), 120, "the agent's first pass", 0.5)
    return pid


def _write_generated() -> None:
    for row in desired().rows:
        if isinstance(row, File):
            Path(row.path).parent.mkdir(parents=True, exist_ok=True)
            Path(row.path).write_text(row.content)


def _answer() -> int:
    asyncio.run(_answer_for_ever())
    return 0


class _Healthy(asyncio.Protocol):
    """Answers any request with 200."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        if isinstance(self._transport, asyncio.Transport):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()


async def _answer_for_ever() -> None:
    loop = asyncio.get_running_loop()
    await responder.serve(lambda: READY, 5555)
    health = await loop.create_server(_Healthy, "0.0.0.0", 5580, backlog=1024)  # noqa: S104 - a namespace of its own
    await health.serve_forever()
