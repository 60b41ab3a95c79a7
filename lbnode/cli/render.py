"""`lbnode render`: prints a generated file as it would be written, the IPVS table for ipvsadm, or files for programs
that others run: BIRD, FRR, gdnsd."""

import click

from lbnode.bgp import exabgp
from lbnode.cli.options import Common, common
from lbnode.config.model import Cluster
from lbnode.errors import Missing
from lbnode.health.state import Health, Probe
from lbnode.ipvs import ipvsadm
from lbnode.maintenance.state import READY
from lbnode.node import Identity, desired_state, load_cluster
from lbnode.plan import TABLE_ROWS
from lbnode.resources import File, Row
from lbnode.roles.inputs import Desired
from lbnode.templates import load as load_templates


@click.command()
@click.argument("what", type=click.Choice(["haproxy", "exabgp", "bird", "frr", "ipvsadm", "gdnsd", "gdnsd-zone"]))
@common
def render(common: Common, what: str) -> int:
    """Print haproxy.cfg, exabgp.conf, the IPVS table or gdnsd's files of this node (choose another with --node).

    By the cluster file alone, as if every server were up. `bird` and `frr` are ready configurations of these programs,
    for `speaker: table`; lbnode writes them nowhere. The table is for `ipvsadm --restore`, which adds to what is
    there: on a node that announces nothing, `ipvsadm --clear` goes before it. gdnsd and gdnsd-zone are for a DNS
    server of the section dns: /etc/gdnsd/config, and the file in /etc/gdnsd/zones/ that has the zone's name.
    Passwords are masked.
    """
    if what in ("gdnsd", "gdnsd-zone"):
        return _gdnsd(common, what)
    identity = common.identity(None)
    cluster = load_cluster(identity)
    if what in ("bird", "frr"):
        path, content = "", _speaker(identity, cluster, what)
    else:
        unknown: dict[Probe, Health] = {}
        desired = desired_state(identity, cluster, READY, unknown)
        path, content = ("", ipvsadm.restore(_for_clients(desired))) if what == "ipvsadm" else _file(desired, what)
    if not content:
        why = f"{identity.name} ({identity.role}) has none; choose another node with --node"
        raise Missing(f"cannot render {what}: {why}")
    content = exabgp.masked(content)
    common.show({"path": path, "content": content}, content.rstrip("\n"))
    return 0


def _speaker(identity: Identity, cluster: Cluster, what: str) -> str:
    """The configuration of a BGP speaker that is not lbnode's; empty when the node announces nothing by one."""
    from lbnode.roles import speakers

    if cluster.bgp.speaker != "table":
        raise Missing(f"cannot render {what}: the cluster file says speaker: {cluster.bgp.speaker}, not table")
    templates = load_templates(identity.paths.templates)
    return speakers.config("bird" if what == "bird" else "frr", templates, cluster, identity.name)


def _gdnsd(common: Common, what: str) -> int:
    from lbnode import gdnsd
    from lbnode.config.load import load

    cluster, templates = load(common.paths.cluster_file), load_templates(common.paths.templates)
    if what == "gdnsd":
        path, content = "/etc/gdnsd/config", gdnsd.config(templates, cluster, common.node, common.paths)
    else:
        content = gdnsd.zone(templates, cluster)
        path = f"/etc/gdnsd/zones/{cluster.dns.zone if cluster.dns else ''}"
    common.show({"path": path, "content": content}, content.rstrip("\n"))
    return 0


def _for_clients(desired: Desired) -> list[Row]:
    """The tables without those of probes, which only an agent has a use for."""
    return [row for row in desired.rows if isinstance(row, TABLE_ROWS) and not row.service.carries_probes]


def _file(desired: Desired, what: str) -> tuple[str, str]:
    """Path and content of the generated file that this program reads; empty when there is none."""
    files = (row for row in desired.rows if isinstance(row, File) and row.checker == what)
    return next(((row.path, row.content) for row in files), ("", ""))
