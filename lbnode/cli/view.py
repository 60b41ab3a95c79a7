"""What a verb sees before it decides: the node's files, and the health as the agent holds it, or probed once."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lbnode.agent import control
from lbnode.config.model import Cluster
from lbnode.errors import LbnodeError
from lbnode.health.state import DIRECT_MARK, Health, Probe
from lbnode.lock import exclusive
from lbnode.maintenance.files import Reading, read
from lbnode.node import Identity, desired_state, drivers, groundwork, load_cluster, wanted_probes
from lbnode.reconcile import ensure, plan
from lbnode.roles.inputs import Desired


@dataclass(frozen=True)
class View:
    """One node, now."""

    cluster: Cluster
    reading: Reading
    health: Mapping[Probe, Health]
    desired: Desired


def current(identity: Identity, prepare: bool = False) -> View:
    """Reads the files, asks the agent or the real servers, and says what follows. Raises what cannot be read.

    `prepare`: what probes need on this node may be made first. Otherwise what cannot be probed yet stays unknown.
    """
    cluster = load_cluster(identity)
    reading = read(identity.paths, identity.role, time.time())
    if reading.problem:
        raise LbnodeError(f"cannot tell what this node is set to: {reading.problem}")
    health = _health(identity, cluster, prepare)
    return View(cluster, reading, health, desired_state(identity, cluster, reading.state, health))


def _health(identity: Identity, cluster: Cluster, prepare: bool) -> Mapping[Probe, Health]:
    probes = wanted_probes(identity, cluster)
    if not probes:
        return {}
    status = control.ask(identity.paths, "status")
    if status is not None and all(probe.id in status["health"] for probe in probes):
        return {probe: Health.from_json(status["health"][probe.id]) for probe in probes}
    from lbnode.health.monitor import probe_once

    ready = _ready_to_probe(identity, cluster, prepare)
    possible = [probe for probe in probes if ready or probe.mark == DIRECT_MARK]
    return asyncio.run(probe_once(possible, cluster.probe.timeout_s, cluster.probe.fall))


def _ready_to_probe(identity: Identity, cluster: Cluster, prepare: bool) -> bool:
    """Whether probes can go the way of clients' packets from here. Raises ApplyFailed when it cannot be made so."""
    wanted, made_by = groundwork(identity, cluster), drivers(identity)
    if prepare:
        with exclusive(identity.paths.lock):
            ensure(wanted, made_by).raise_if_failed()
        return True
    return not any(change.new for change in plan(wanted, made_by).changes)
