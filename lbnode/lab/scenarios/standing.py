"""A network on its feet: its nodes' programs started, everything announced and used, before anything is done to it."""

import time
from functools import partial

from lbnode.lab import programs
from lbnode.lab.clients.crowd import pairs
from lbnode.lab.programs import PATHS
from lbnode.lab.scenarios.stage import Stage

SETTLED_S = 900.0
"""A deadline, long enough for a slow processor that has other work."""
CALM_S = 3.0


def bring_up(stage: Stage) -> None:
    """Starts every program on every node, and returns when all is in use and stays so. Raises LabError."""
    _start(stage)
    settle(stage)


def _start(stage: Stage) -> None:
    """Where there are ExaBGPs, one node that announces after the other: on one processor, their checks of all their
    configurations at once take too long."""
    topology = stage.lab.topology
    programs.start_nodes(stage.lab, stage.supervisor, agents=False)
    one_by_one = topology.announcers if topology.cluster.bgp.speaker == "exabgp" else ()
    for name in one_by_one:
        programs.start_agents(stage.lab, stage.supervisor, [name])
        stage.wait(
            partial(stage.node(name).exists, str(PATHS.exabgp_config)), SETTLED_S, f"ExaBGP's file on {name}", 0.2
        )
    others = [name for name in topology.machines if name not in one_by_one]
    programs.start_agents(stage.lab, stage.supervisor, others)


def settle(stage: Stage) -> None:
    """Until everybody is used, every VIP answers, and no way has come for a while."""
    stage.wait(lambda: _in_full_use(stage), SETTLED_S, "ways to every VIP, by every node, to every real server", 0.2)
    users = stage.lab.topology.clients
    asks = pairs(stage.vips, [*users.addresses(4)[:1], *users.addresses(6)[:1]])
    stage.wait(lambda: all(reply.status == 200 for reply in stage.crowd.ask(asks)), SETTLED_S, "an answer by every VIP")
    last, since = stage.all_routes(), time.monotonic()

    def calm() -> bool:
        nonlocal last, since
        now = stage.all_routes()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > CALM_S

    stage.wait(calm, SETTLED_S, "routes that stay", 0.2)


def _in_full_use(stage: Stage) -> bool:
    """Whether routers have ways to every VIP and by every node that announces, and L4 nodes use every real server."""
    tables = stage.all_routes().values()
    hops = {hop for table in tables for found in table.values() for hop in found}
    return (
        set(stage.vips) <= {vip for table in tables for vip in table}
        and set(stage.announcers) <= {*map(stage.name_of, hops)}
        and all(map(stage.routed_fully, stage.l4))
        and stage.all_in_use()
    )
