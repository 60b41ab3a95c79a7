"""Makes a topology real: nodes, LANs, addresses, routes, router settings, and the files that programs start with.

Nothing runs afterwards but the kernel's forwarding; `lbnode.lab.programs` starts the rest.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lbnode.errors import LbnodeError
from lbnode.lab import dns, ecmp, frr, layout, links, routing, web
from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node
from lbnode.lab.topology import Hash, Machine, Topology
from lbnode.templates import Templates, share

FABRIC = "fabric"
RUN = Path("/run/lab")
"""Inside a node: what the lab's own programs keep there."""
BIRD_CONF, BIRD_SOCKET = RUN / "bird.conf", RUN / "bird.ctl"
BIRDC_LOOKS = Path("/run/bird/bird.ctl")
FRR_CONF = RUN / "frr.conf"
WEB_CONF = RUN / "web.conf"
DNS_FILES = RUN / "gdnsd"
CLUSTER_FILE = Path("/etc/lb/cluster.yaml")

# Bits of net.ipv4.fib_multipath_hash_fields (Documentation/networking/ip-sysctl.rst): 1 source address, 2 destination
# address, 4 protocol, 0x10 source port, 0x20 destination port. Policy 3 hashes these, read from the packet.
HASH_FIELDS: dict[Hash, int] = {"flow": 0x37, "ports": 0x33, "source": 0x13, "client": 0x23}


@dataclass(frozen=True)
class Lab:
    """A network that stands. `folder` is outside the nodes: logs, and files that all nodes share."""

    topology: Topology
    nodes: Mapping[str, Node]
    folder: Path

    @property
    def logs(self) -> Path:
        """Programs' output: `<node>/<program>.log`."""
        return self.folder / "logs"

    @property
    def files(self) -> Path:
        """What the web servers offer for download."""
        return self.folder / "files"


def load(folder: Path, scale: str) -> Topology:
    """The topology in a folder, with its cluster file. Raises LabError, and ConfigError for the cluster file."""
    from lbnode.config.load import load as load_cluster

    source = layout.read(folder)
    return layout.resolve(source, scale, load_cluster(folder / source.scale(scale, folder).cluster), folder)


@contextmanager
def build(plan: Topology, folder: Path) -> Iterator[Lab]:
    """The network, until the block ends. Everything inside it ends with it. Raises LabError, OSError."""
    shutil.rmtree(folder / "logs", ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    _room_for_neighbours()
    with ExitStack() as stack:
        names = (*plan.machines, FABRIC)
        nodes = {name: stack.enter_context(Node(name)) for name in names}
        lab = Lab(plan, MappingProxyType(nodes), folder)
        _join(lab)
        for machine in plan.machines.values():
            _settle(nodes[machine.name], machine)
        _write_files(lab)
        yield lab


def _room_for_neighbours() -> None:
    """Neighbour entries of all namespaces count together (net/core/neighbour.c), 1024 at most by default."""
    for family in ("ipv4", "ipv6"):
        with suppress(OSError):  # not there, or not ours to write, when the lab runs in a namespace of a real machine
            Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh3").write_text("16384\n")


def _join(lab: Lab) -> None:
    """Two machines are joined by a cable, more by a switch."""
    for lan, members in lab.topology.lans.items():
        ports = [_port(lab, name, lan) for name in members]
        if len(ports) == 2:
            links.connect(*ports)
        else:
            links.lan(lab.nodes[FABRIC], lan, ports)


def _port(lab: Lab, name: str, lan: str) -> links.Port:
    addresses = next(port.addresses for port in lab.topology.machines[name].ports if port.lan == lan)
    return links.Port(lab.nodes[name], lan, addresses)


def _settle(node: Node, machine: Machine) -> None:
    """Routes, and what makes a router one."""
    if machine.forwards:
        ecmp.router(node, [port.lan for port in machine.ports])
        ecmp.sysctls(node, _hash_settings(3) | _hash_fields(HASH_FIELDS[machine.hash]))
    else:
        ecmp.sysctls(node, _hash_settings(1))
    links.route(node, *(links.Route(route.prefix, route.gateways) for route in machine.routes))


def _hash_settings(policy: int) -> dict[str, int]:
    return {f"net/{family}/fib_multipath_hash_policy": policy for family in ("ipv4", "ipv6")}


def _hash_fields(fields: int) -> dict[str, int]:
    return {f"net/{family}/fib_multipath_hash_fields": fields for family in ("ipv4", "ipv6")}


def templates(*folders: Path) -> Templates:
    """The templates in some folders, by file name; of those with the same name the last."""
    files = {path.name: path for folder in folders for path in sorted(folder.glob("*.j2"))}
    return Templates(
        MappingProxyType({name: path.read_text(encoding="utf-8") for name, path in files.items()}),
        MappingProxyType({name: str(path) for name, path in files.items()}),
    )


def _write_files(lab: Lab) -> None:
    """The cluster file on every node that has a role; the configurations of routing daemons, web and DNS servers."""
    web.write_files(lab.files)
    sources = templates(share("templates"), lab.topology.folder.parent, lab.topology.folder)
    cluster = lab.topology.cluster_file.read_text(encoding="utf-8")
    for name, machine in lab.topology.machines.items():
        node = lab.nodes[name]
        try:
            if machine.role:
                node.write(CLUSTER_FILE, cluster)
            if machine.bird:
                node.write(BIRD_CONF, routing.config(sources, machine.bird, lab.topology, name, RUN))
                node.call(_link_bird)
            if machine.frr:
                frr.prepare(node)
                node.write(FRR_CONF, frr.readable(routing.config(sources, machine.frr, lab.topology, name, RUN)))
            if machine.role == "backend":
                node.write(WEB_CONF, web.config(sources, name, RUN, lab.files))
            if name in dns.servers(lab.topology):
                for path, text in dns.files(lab.topology, name, DNS_FILES).items():
                    node.write(path, text)
        except LbnodeError as error:
            raise LabError(str(error)) from error


def _link_bird() -> None:
    """BIRD's socket is also where `birdc` looks for it."""
    BIRDC_LOOKS.parent.mkdir(exist_ok=True)
    BIRDC_LOOKS.symlink_to(BIRD_SOCKET)
