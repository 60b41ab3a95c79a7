"""One node: from its files to its desired state and its drivers. What `plan`, `apply` and the agent begin with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lbnode.chance.generations import Past
from lbnode.config.load import load
from lbnode.config.model import Cluster, Role
from lbnode.drivers import Driver
from lbnode.errors import ConfigError, NotReady, Problem
from lbnode.health.state import Health, Probe
from lbnode.maintenance.departure import age_s
from lbnode.maintenance.state import AdminState, Mode
from lbnode.paths import Paths
from lbnode.roles import desired
from lbnode.roles.inputs import Chance, Desired, Inputs, ProxyFacts
from lbnode.roles.own_check import own_checks
from lbnode.roles.prober import Prober
from lbnode.templates import load as load_templates


@dataclass(frozen=True)
class Identity:
    """Which node this is, in which role, and where its files are."""

    name: str
    role: Role
    paths: Paths


def load_cluster(identity: Identity) -> Cluster:
    """The cluster file, checked, and checked that this node stands in it with this role. Raises ConfigError."""
    file = identity.paths.cluster_file
    cluster = load(file)
    node = cluster.nodes.get(identity.name)
    if node is None:
        known = ", ".join(cluster.nodes)
        raise ConfigError([Problem(0, 0, f"no node {identity.name!r}", f"use --node with one of {known}", str(file))])
    if node.role != identity.role:
        problem = f"node {identity.name!r} has role {node.role}, not {identity.role}"
        raise ConfigError([Problem(0, 0, problem, f"use --role {node.role}", str(file))])
    return cluster


def desired_state(identity: Identity, cluster: Cluster, admin: AdminState, health: Mapping[Probe, Health]) -> Desired:
    """What this node should look like now."""
    return desired(identity.role, inputs_of(identity, cluster, admin, health, passwords_of(identity, cluster)))


def passwords_of(identity: Identity, cluster: Cluster) -> dict[str, str]:
    """Of the BGP sessions of this node, by the peer's name. Raises ConfigError with every file that cannot be used."""
    if not announces(identity, cluster):
        return {}
    from lbnode.bgp.passwords import read

    return read(cluster, identity.name)


def wanted_passwords(identity: Identity, cluster: Cluster) -> set[str]:
    """The peers with whom this node's sessions have a password."""
    peers = cluster.bgp.peers.items()
    return {name for name, peer in peers if peer.password_file and peer.speaks_with(identity.name)}


def inputs_of(
    identity: Identity,
    cluster: Cluster,
    admin: AdminState,
    health: Mapping[Probe, Health],
    passwords: Mapping[str, str],
) -> Inputs:
    """All that it depends on: what people and probes say, and, where that is not decided afresh each time, what the
    node does already."""
    version, ended, announced, proxy = (2, 6), frozenset[str](), frozenset[str](), ProxyFacts()
    if identity.role == "l7":
        from lbnode.haproxy import program

        version = program.version()
        proxy = program.facts(cluster, identity.paths)
    if identity.role == "l4":
        from lbnode.net import policy

        ended = policy.ended()
    now, leaving_s, damped = time.time(), None, dict[str, float]()
    if announces(identity, cluster):
        from lbnode.bgp import flaps

        announced, damped = announced_by(identity, cluster), flaps.damped(identity.paths, cluster.bgp.damping, now)
        leaving_s = age_s(admin, cluster.bgp.leaving, now)
    templates = load_templates(identity.paths.templates)
    filters = identity.role != "l4" and _filters()
    past, chance = Past(), Chance()
    if identity.role != "l4":
        from lbnode.chance import situation

        past, chance = situation.of(cluster, identity.name, identity.paths)
    return Inputs(
        cluster,
        identity.name,
        admin,
        health,
        templates,
        identity.paths,
        version,
        ended,
        announced,
        filters,
        proxy,
        leaving_s,
        damped,
        past,
        chance,
        passwords,
    )


def announced_by(identity: Identity, cluster: Cluster) -> frozenset[str]:
    """The VIPs that this node is to announce, by the orders that were left last for whatever speaker."""
    if not announces(identity, cluster):
        return frozenset()
    if cluster.bgp.speaker == "table":
        from lbnode.bgp import table

        return table.announced()
    from lbnode.bgp import driver

    return driver.announced(identity.paths)


def note_flaps(
    identity: Identity, cluster: Cluster, admin: AdminState, before: frozenset[str], desired: Desired
) -> None:
    """Remembers the VIPs that a pass has withdrawn because of their real servers; `before`: what was announced."""
    if admin.mode is not Mode.READY or not before:
        return
    bad = {verdict.name for verdict in desired.verdicts if verdict.kind == "vip" and not verdict.good}
    if gone := (before & bad) - announced_by(identity, cluster):
        from lbnode.bgp import flaps

        flaps.note(identity.paths, gone, cluster.bgp.damping, time.time())


def announces(identity: Identity, cluster: Cluster) -> bool:
    """Whether this node is one that speaks BGP."""
    return identity.role == "l4" or bool(cluster.announced_by(identity.name))


def _filters() -> bool:
    """Whether this kernel, and what we may do, allow an nftables table."""
    from lbnode.net import nfnetlink, nftables

    try:
        nfnetlink.try_table(nftables.TABLE)
    except (OSError, NotReady):
        return False
    return True


def groundwork(identity: Identity, cluster: Cluster) -> Desired:
    """What must be there before this node can probe."""
    inputs = Inputs(cluster, identity.name)
    if identity.role == "l4":
        from lbnode.roles import l4

        return l4.groundwork(inputs)
    if identity.role == "backend":
        from lbnode.roles import backend

        return backend.groundwork(inputs)
    return Desired()


def wanted_probes(identity: Identity, cluster: Cluster) -> tuple[Probe, ...]:
    """What this node must keep probing: an L4 node its real servers, a backend that announces itself."""
    if identity.role == "l4":
        return Prober(cluster, identity.name).probes()
    return tuple(dict.fromkeys(check.probe for check in own_checks(cluster, identity.name)))


def drivers(identity: Identity) -> list[Driver]:
    """The drivers of the node's role. Heavy ones are imported only here."""
    from lbnode.files import FileDriver
    from lbnode.net.filter import FilterDriver
    from lbnode.net.fou import FouDriver
    from lbnode.net.links import LinkDriver
    from lbnode.net.sysctl import SysctlDriver

    found: list[Driver] = [SysctlDriver(), LinkDriver(), FouDriver(identity.paths), FilterDriver()]
    if identity.role in ("l4", "backend"):
        from lbnode.bgp import exabgp
        from lbnode.bgp.driver import ExabgpDriver
        from lbnode.bgp.table import TableDriver

        found += [FileDriver({"exabgp": exabgp.check}), ExabgpDriver(identity.paths), TableDriver()]
    if identity.role == "l4":
        from lbnode.ipvs.driver import IpvsDriver
        from lbnode.net.policy import PolicyDriver

        ipvs = IpvsDriver(identity.paths)
        found += [PolicyDriver(ipvs.renew), ipvs]
    if identity.role == "l7":
        from lbnode.haproxy.driver import HaproxyDriver

        found += [FileDriver({"haproxy": partial(_haproxy_check, identity)}), HaproxyDriver(identity.paths)]
    if identity.role != "l4":
        from lbnode.chance.driver import ChanceDriver

        found.append(ChanceDriver(identity.paths.bpf))
    return found


def _haproxy_check(identity: Identity, path: Path) -> str:
    """What HAProxy has against a file, with the places in template and cluster file that its lines come from."""
    from lbnode.config import positions
    from lbnode.haproxy import origin, program, render

    complaint = program.check(path)
    numbers = origin.lines_named(complaint)
    if not numbers:
        return complaint
    file, templates = identity.paths.cluster_file, load_templates(identity.paths.templates)
    document = positions.read(file.read_text(encoding="utf-8-sig"))
    cluster, version = load(file), program.version()
    config = path.read_text(encoding="utf-8")
    lines = origin.template_lines(
        templates, lambda traced: render.config(traced, cluster, identity.name, identity.paths, version).text
    )
    where = templates.origin.get(render.TEMPLATE, render.TEMPLATE)
    for number in numbers:
        place = origin.cluster_place(config, number, document)
        template = f"{where}:{lines[number - 1]}" if number <= len(lines) else where
        complaint += f"\n  line {number} comes from {template} and {file}:{place.line}:{place.column}"
    return complaint
