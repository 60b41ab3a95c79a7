"""What doctor finds of a node's announcements: reads what ExaBGP or the route table has; `bgp` and `table` judge."""

from collections.abc import Iterable, Sequence

from lbnode.bgp.table import TableDriver
from lbnode.bgp.told import read_told
from lbnode.doctor import bgp, host, programs, table
from lbnode.doctor.finding import Finding
from lbnode.doctor.patient import Patient
from lbnode.net import addresses
from lbnode.resources import AnnouncedRoute


def announcing(patient: Patient) -> list[Finding]:
    """For nodes that announce."""
    cluster, name = patient.cluster, patient.identity.name
    vips = [str(vip) for service in cluster.announced_by(name).values() for vip in service.vips]
    if not vips:
        return []
    by = _by_table if cluster.bgp.speaker == "table" else _by_exabgp
    found = by(patient, vips)
    return [*found, bgp.ecmp(cluster), *bgp.lingering(bgp.spoken_with(cluster, name))]


def _by_exabgp(patient: Patient, vips: Sequence[str]) -> list[Finding]:
    cluster, told = patient.cluster, read_told(patient.identity.paths)
    peers = bgp.spoken_with(cluster, patient.identity.name)
    found = [programs.installed("exabgp", host.exabgp_version()), *bgp.sessions(peers, told.peers if told else {})]
    if told is None:
        return found
    refused = {str(key[1]).partition("/")[0]: why for key, why in told.refused.items()}
    found += bgp.relay(told.problem, told.agent_gone, cluster.bgp.dead_man.then)
    prefixes = [row.prefix for row in told.announced]
    return [*found, *bgp.announced(_bare(prefixes), vips, _local(), refused, patient.apply)]


def _by_table(patient: Patient, vips: Sequence[str]) -> list[Finding]:
    """What stands in the table, and who reads it; what becomes of it is up to BIRD or FRR."""
    observed = TableDriver().observe(patient.of(AnnouncedRoute))
    prefixes = [row.prefix for row in observed.rows if isinstance(row, AnnouncedRoute)]
    found = table.speakers(patient.cluster, patient.identity.name, host.running(table.PROGRAMS))
    told = bgp.announced(_bare(prefixes), vips, _local(), {}, patient.apply)
    return [*found, bgp.elsewhere(), *told, *table.strangers(observed.foreign)]


def _bare(prefixes: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(prefix.partition("/")[0] for prefix in prefixes))


def _local() -> set[str]:
    return {one.address for one in addresses.dump()}
