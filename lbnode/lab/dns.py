"""The DNS servers of a lab: gdnsd with the files that `lbnode render` prints, on the machines that the cluster file's
section `dns` names."""

from pathlib import Path

from lbnode import gdnsd
from lbnode.lab.topology import Topology
from lbnode.paths import Paths
from lbnode.templates import load


def servers(topology: Topology) -> tuple[str, ...]:
    """The machines that are DNS servers."""
    dns = topology.cluster.dns
    return tuple(name for name in topology.machines if dns is not None and name in dns.servers)


def files(topology: Topology, server: str, folder: Path) -> dict[Path, str]:
    """What one of them has in `folder`. Raises LbnodeError."""
    dns, templates = topology.cluster.dns, load()
    zone = dns.zone if dns is not None else ""
    return {
        folder / "config": gdnsd.config(templates, topology.cluster, server, Paths()),
        folder / "zones" / zone: gdnsd.zone(templates, topology.cluster),
    }


def command(folder: Path) -> list[str]:
    """How gdnsd is started: in the foreground, its log on stderr."""
    return ["/usr/sbin/gdnsd", "-c", str(folder), "start"]
