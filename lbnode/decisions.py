"""What an agent decides, pass after pass: worked out anew only when what it depends on has changed."""

from collections.abc import Mapping
from dataclasses import replace

from lbnode.config.model import Cluster
from lbnode.errors import ConfigError
from lbnode.health.state import Health, Probe
from lbnode.maintenance.state import AdminState
from lbnode.node import Identity, inputs_of, passwords_of, wanted_passwords, wanted_probes
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs
from lbnode.roles.serving import settle_s


class Decisions:
    """The desired state of one node and its probes, worked out anew only when what they depend on has changed."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._probed: Cluster | None = None
        self._probes: tuple[Probe, ...] = ()
        self._inputs: Inputs | None = None
        self._desired = Desired()
        self._passwords: dict[str, str] = {}
        self.problem = ""
        """What is wrong with a password file while the last good password stays in force."""

    def probes(self, cluster: Cluster) -> tuple[Probe, ...]:
        """As `wanted_probes`; they are up to the cluster file alone."""
        if cluster is not self._probed:
            self._probes, self._probed = wanted_probes(self._identity, cluster), cluster
        return self._probes

    def desired(self, cluster: Cluster, admin: AdminState, health: Mapping[Probe, Health]) -> Desired:
        """As `desired_state`; the same value as long as nothing has changed. A password file that is lost or spoilt
        changes nothing."""
        try:
            self._passwords, self.problem = passwords_of(self._identity, cluster), ""
        except ConfigError as error:
            if not wanted_passwords(self._identity, cluster) <= self._passwords.keys():
                raise
            self.problem = f"the last good one stays in force: {error}"
        inputs = inputs_of(self._identity, cluster, admin, health, self._passwords)
        if self._inputs is None or not same(inputs, self._inputs):
            self._desired = desired(self._identity.role, inputs)
            self._inputs = inputs
        return self._desired

    @property
    def announced(self) -> frozenset[str]:
        """The VIPs that were announced when it was decided last."""
        return self._inputs.announced if self._inputs else frozenset()

    @property
    def damped(self) -> Mapping[str, float]:
        """The VIPs that were damped then, and until when."""
        return self._inputs.damped if self._inputs else {}

    @property
    def passing(self) -> bool:
        """Whether they will change with time alone."""
        return self._inputs is not None and _starting(self._inputs)


def same(one: Inputs, other: Inputs) -> bool:
    """Whether both lead to the same desired state. One cluster file is one object: it is not compared in depth."""
    if one.cluster is not other.cluster or _starting(one) or _starting(other):
        return False
    return replace(one, cluster=other.cluster) == other


def _starting(inputs: Inputs) -> bool:
    """Whether a real server has come back so lately that what follows from it changes with time."""
    slow = max((service.slow_start_s for service in inputs.cluster.services.values()), default=0)
    longest = max(slow, settle_s(inputs.cluster.probe))
    backs = (health.back_for_s for health in inputs.health.values())
    return any(back is not None and back < longest for back in backs)
