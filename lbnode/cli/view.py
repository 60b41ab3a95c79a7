"""What a verb sees before it decides: the node's files, and the health as the agent holds it, or probed once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from lbnode.agent import control
from lbnode.config.model import Cluster
from lbnode.errors import LbnodeError
from lbnode.health.state import Health, Probe
from lbnode.maintenance.files import Reading, read
from lbnode.node import Identity, desired_state, load_cluster, wanted_probes
from lbnode.roles.inputs import Desired


@dataclass(frozen=True)
class View:
    """One node, now."""

    cluster: Cluster
    reading: Reading
    health: Mapping[Probe, Health]
    desired: Desired


def current(identity: Identity) -> View:
    """Reads the files, asks the agent or the real servers, and says what follows. Raises what cannot be read."""
    cluster = load_cluster(identity)
    reading = read(identity.paths, identity.role)
    if reading.problem:
        raise LbnodeError(f"cannot tell what this node is set to: {reading.problem}")
    health = _health(identity, cluster)
    return View(cluster, reading, health, desired_state(identity, cluster, reading.state, health))


def _health(identity: Identity, cluster: Cluster) -> Mapping[Probe, Health]:
    probes = wanted_probes(identity, cluster)
    if not probes:
        return {}
    status = control.ask(identity.paths, "status")
    if status is not None and all(probe.id in status["health"] for probe in probes):
        return {probe: Health.from_json(status["health"][probe.id]) for probe in probes}
    from lbnode.health.monitor import probe_once

    return asyncio.run(probe_once(probes, cluster.probe.timeout_s, cluster.probe.fall))
