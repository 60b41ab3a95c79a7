"""The scenarios there are, by the name of their topology; each is imported only when it is asked for."""

from lbnode.lab.errors import LabError
from lbnode.lab.imported import imported
from lbnode.lab.scenarios.scenario import Scenario

SCENARIOS = {
    "anycast-bird": "lbnode.lab.scenarios.anycast_bird:SCENARIO",
    "anycast-exabgp": "lbnode.lab.scenarios.anycast_exabgp:SCENARIO",
    "anycast-frr": "lbnode.lab.scenarios.anycast_frr:SCENARIO",
    "anycast-two-routers": "lbnode.lab.scenarios.anycast_two_routers:SCENARIO",
    "three-tier": "lbnode.lab.scenarios.three_tier:SCENARIO",
}


def scenario_of(topology: str) -> Scenario:
    """Raises LabError when there is none."""
    where = SCENARIOS.get(topology)
    if where is None:
        raise LabError(f"cannot run {topology}: it has no scenario, but `lbnode lab up` brings it up")
    found: Scenario = imported(where)
    return found
