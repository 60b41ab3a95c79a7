"""What the three tiers must show, step by step, on one network: `lbnode lab run three-tier`."""

from lbnode.lab import programs
from lbnode.lab.scenarios import doctors, leaving, names, narrow, repair, serving, upkeep
from lbnode.lab.scenarios.scenario import Scenario, Step, Steps, once, show
from lbnode.lab.scenarios.stage import Stage

STEPS: tuple[Step, ...] = (
    Step("apply", "`lbnode apply` alone, no agent anywhere", once(repair.apply_alone), agents=False),
    Step("plan", "a service removed by hand, no agent running", once(repair.drift_planned), agents=False),
    Step("spread", "requests from every client to every VIP", once(serving.spread)),
    Step("address", "the client's own address", once(serving.own_address)),
    Step("return", "direct return", once(serving.return_path)),
    Step("path-mtu", "a path of MTU 1400", once(narrow.path_mtu)),
    Step("doctor", "`lbnode doctor` on L4 nodes and routers", once(doctors.edge)),
    Step("names", "names, by DNS servers in front", once(names.names)),
    Step("disable", "`touch /etc/lb/disable` on L4 nodes", upkeep.l4_disable),
    Step("leave", "an L4 node leaves in order", once(leaving.in_order)),
    Step("agent-stopped", "an agent stopped", once(leaving.stopped)),
    Step("l7-killed", "HAProxy killed on an L7 node", once(upkeep.l7_killed)),
    Step("l7-drain", "`lbnode drain` on an L7 node", once(upkeep.l7_drain)),
    Step("l7-down", "`down` on an L7 node", once(upkeep.l7_down)),
    Step("backend-down", "`down` on a backend", once(upkeep.backend_down)),
    Step("backend-drain", "`lbnode drain` on a backend", once(upkeep.backend_drain)),
    Step("drift", "a service removed by hand, the agent running", once(repair.drift_repaired)),
    Step("agent-killed", "agents killed", once(repair.agent_killed)),
    Step("exabgp-killed", "ExaBGP killed", once(repair.exabgp_killed)),
    Step("bad-file", "a cluster file with six mistakes", once(repair.bad_file)),
)


def play(stage: Stage, steps: Steps, rounds: int) -> None:
    """First the steps that want no agents; then those that do, once these have made everything right."""
    alone = [step for step in steps if not step.agents]
    programs.start_nodes(stage.lab, stage.supervisor, agents=not alone)
    repair.foreign_service(stage)
    show(stage, alone, rounds)
    with stage.report.step("agents on every node"):
        if alone:
            repair.start_agents(stage)
        serving.converge(stage)
    show(stage, [step for step in steps if step.agents], rounds)
    repair.foreign_survives(stage)


SCENARIO = Scenario(STEPS, play, rounds=10)
