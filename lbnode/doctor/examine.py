"""All checks of one node: reads what each needs, lets it decide, and goes on when one cannot be answered."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lbnode.bgp.driver import ExabgpDriver
from lbnode.config.model import Cluster, Node
from lbnode.doctor import devices, host, modules, packets, programs, rights, rules, second_chance, settings
from lbnode.doctor.announcing import announcing
from lbnode.doctor.finding import Finding
from lbnode.doctor.patient import Patient
from lbnode.drivers import Driver
from lbnode.errors import LbnodeError, Missing, NotPermitted
from lbnode.haproxy.driver import HaproxyDriver
from lbnode.haproxy.program import version as haproxy_version
from lbnode.net.filter import FilterDriver
from lbnode.net.fou import FouDriver
from lbnode.net.links import LinkDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.node import Identity
from lbnode.resources import Address, File, FouPort, Link, MssClamp, Running, Sysctl
from lbnode.roles import desired, mss
from lbnode.roles.inputs import Inputs
from lbnode.templates import load as load_templates

_ASSUMED_HAPROXY = (2, 6)
"""What the configuration is rendered for when no haproxy is installed, so that the other checks can go on."""


Check = Callable[[Patient], Iterable[Finding]]


def examine(identity: Identity, cluster: Cluster) -> tuple[Finding, ...]:
    """Every finding, in the order of `CHECKS`. Raises LbnodeError when it cannot be said what the node should be like
    (a template of the operator's own that is wrong)."""
    found: list[Finding] = []
    version: tuple[int, int] | None = _ASSUMED_HAPROXY
    if identity.role == "l7":
        version = _haproxy_version()
        found.append(programs.installed("haproxy", version))
    inputs = Inputs(
        cluster,
        identity.name,
        templates=load_templates(identity.paths.templates),
        paths=identity.paths,
        haproxy_version=version or _ASSUMED_HAPROXY,
    )
    patient = Patient(identity, cluster, desired(identity.role, inputs).rows, _uplinks(cluster.nodes[identity.name]))
    for name, check in CHECKS.items():
        try:
            found += check(patient)
        except (LbnodeError, OSError) as error:
            refused = isinstance(error, NotPermitted | PermissionError)
            found.append(Finding(name, "unknown", str(error), "run it as root" if refused else ""))
    return tuple(found)


def _haproxy_version() -> tuple[int, int] | None:
    try:
        return haproxy_version()
    except Missing:
        return None


def _uplinks(node: Node) -> dict[int, host.Uplink]:
    own = {version: str(address) for version in (4, 6) if (address := node.address(version))}
    there = host.uplinks(own.values())
    return {version: there[address] for version, address in own.items() if address in there}


def _own_addresses(patient: Patient) -> list[Finding]:
    found = []
    for version in (4, 6):
        address, uplink = patient.node.address(version), patient.uplinks.get(version)
        if address and uplink:
            found.append(Finding(f"address ipv{version}", "ok", f"{address} on {uplink.device}"))
        elif address:
            mend = (
                f"ip address add {address}/PREFIX dev DEVICE, or mend nodes.{patient.identity.name} in the cluster file"
            )
            found.append(Finding(f"address ipv{version}", "fail", f"{address} is on no device of this node", mend))
    return found


def _modules(patient: Patient) -> Iterable[Finding]:
    release = os.uname().release
    states = host.modules(modules.needed(patient.rows), Path("/lib/modules", release))
    return modules.check(states, release, locked=host.setting("kernel/modules_disabled") == 1)


def _sysctls(patient: Patient) -> Iterable[Finding]:
    rows = [row for row in patient.rows if isinstance(row, Sysctl)]
    actual = {row.name: row.value for row in SysctlDriver().observe(rows).rows if isinstance(row, Sysctl)}
    return settings.wanted(rows, actual, patient.apply)


def _reverse_path(patient: Patient) -> Iterable[Finding]:
    names = [row.name for row in patient.rows if isinstance(row, Link) and row.type in ("ipip", "gre")]
    names += [uplink.device for version, uplink in patient.uplinks.items() if version == 4]
    values = {name: host.setting(f"net/ipv4/conf/{name}/rp_filter") for name in names}
    there = {name: value for name, value in values.items() if value is not None}
    return settings.reverse_path(host.setting("net/ipv4/conf/all/rp_filter") or 0, there, patient.apply)


def _router_advertisements(patient: Patient) -> Iterable[Finding]:
    uplink = patient.uplinks.get(6)
    if uplink is None:
        return ()
    folder = f"net/ipv6/conf/{uplink.device}"
    accept_ra, forwarding = host.setting(f"{folder}/accept_ra"), host.setting(f"{folder}/forwarding")
    listener = settings.Listener(uplink.device, accept_ra or 0, forwarding or 0)
    return settings.router_advertisements([listener], host.default_route(6) is not None)


def _devices(patient: Patient) -> Iterable[Finding]:
    wanted = patient.of(Link, Address)
    observed = LinkDriver().observe(wanted)
    lost = devices.LOST_BY_L4 if patient.identity.role == "l4" else devices.LOST
    return devices.check(observed.rows, wanted, observed.foreign, patient.apply, lost)


def _rules(patient: Patient) -> list[Finding]:
    wanted = patient.of(*FilterDriver.kinds)
    found = list(rules.nf_tables(host.nf_tables() if wanted else rules.NfTables(True, True), wanted))
    if all(one.verdict == "ok" for one in found):
        found += rules.check("filter", FilterDriver().observe(wanted).rows, wanted, patient.apply)
    return found


def _ports(patient: Patient) -> Iterable[Finding]:
    wanted = patient.of(FouPort)
    return rules.check("gue", FouDriver(patient.identity.paths).observe(wanted).rows, wanted, patient.apply)


def _packets(patient: Patient) -> list[Finding]:
    found: list[Finding] = []
    for version in (4, 6):
        tunnel = _tunnel(patient, version)
        if tunnel is not None:
            found += _ways(patient, tunnel) if patient.identity.role == "l4" else _mss(patient, tunnel)
    return found


def _tunnel(patient: Patient, version: int) -> packets.Tunnel | None:
    """The widest of those that this node has to do with; None when it has to do with no service of this family."""
    role, cluster = patient.identity.role, patient.cluster
    outer = [
        mss.overhead(service.ipvs, version)
        for service in cluster.balanced.values()
        if role in ("l4", service.through) and any(vip.version == version for vip in service.vips)
    ]
    return packets.Tunnel(version, max(outer), cluster.tunnel.mtu, cluster.tunnel.clamp_mss) if outer else None


def _ways(patient: Patient, tunnel: packets.Tunnel) -> Iterable[Finding]:
    version = tunnel.version
    services = [
        service for service in patient.cluster.balanced.values() if any(v.version == version for v in service.vips)
    ]
    nodes = [node for service in services for node in patient.cluster.real_servers(service).values()]
    targets = dict.fromkeys(str(address) for node in nodes if (address := node.address(version)))
    return packets.ways(tunnel, host.ways(list(targets)))


def _mss(patient: Patient, tunnel: packets.Tunnel) -> Iterable[Finding]:
    version = tunnel.version
    uplink, vips = patient.uplinks.get(version), patient.vips(version)
    if uplink is None or not vips:
        return ()
    if patient.identity.role == "l7":
        config = next(row.content for row in patient.rows if isinstance(row, File) and row.checker == "haproxy")
        return packets.haproxy_mss(tunnel, packets.binds(config, vips), uplink.mtu)
    route = host.default_route(version)
    clamps = {row.vip: row.mss for row in patient.rows if isinstance(row, MssClamp)}
    by_vip = {vip: clamps.get(vip, 0) for vip in vips}
    return packets.route_mss(tunnel, by_vip, uplink.mtu, route.advmss if route else 0)


def _running(patient: Patient) -> list[Finding]:
    found = []
    for row in patient.rows:
        if isinstance(row, Running):
            paths = patient.identity.paths
            driver: Driver = HaproxyDriver(paths) if row.program == "haproxy" else ExabgpDriver(paths)
            now = [one for one in driver.observe(patient.of(Running)).rows if isinstance(one, Running)]
            found.append(programs.runs(row, now[0] if now else None, patient.apply))
    return found


def _second_chance(patient: Patient) -> Iterable[Finding]:
    return second_chance.check(patient.identity, patient.cluster, patient.apply)


def _rights(patient: Patient) -> list[Finding]:
    paths = patient.identity.paths
    folders = [rights.writable(str(path), host.write_problem(path)) for path in (paths.etc, paths.run)]
    return [rights.net_admin(host.capabilities()), *folders, rights.inotify(host.inotify())]


CHECKS: dict[str, Check] = {
    "rights": _rights,
    "addresses": _own_addresses,
    "modules": _modules,
    "sysctls": _sysctls,
    "rp_filter": _reverse_path,
    "accept_ra": _router_advertisements,
    "devices": _devices,
    "filter": _rules,
    "gue": _ports,
    "mtu and mss": _packets,
    "programs": _running,
    "second chance": _second_chance,
    "bgp": announcing,
}
