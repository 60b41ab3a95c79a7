"""The keepalived stack on the three-tier network: it serves, and people's orders have the effect it is known for.

The network stands in a kernel of its own. There this file runs as a program, which does one thing after the other and
writes what it finds; the tests read that.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab
LBNODE = Path(sys.executable).with_name("lbnode")
EFFECT_S = 60.0
POLL_S = 0.25
TIMERS = {"delay_loop_s": 3, "interval_s": 2}


def watch(work):
    """What the tests need to know, as JSON can hold it. Takes about a minute."""
    from lbnode.lab import programs
    from lbnode.lab.build import build, load
    from lbnode.lab.clients.crowd import Crowd
    from lbnode.lab.scenarios.report import Report
    from lbnode.lab.scenarios.stage import Stage
    from lbnode.lab.stacks.keepalived import Keepalived
    from lbnode.lab.stacks.keepalived_files import Timers
    from lbnode.lab.supervisor import Supervisor
    from lbnode.templates import share

    topology = load(share("lab") / "three-tier", "small")
    with build(topology, work) as lab, Supervisor(lab.logs) as supervisor:
        programs.start_network(lab, supervisor)
        users = topology.clients.name
        with Crowd(lab.nodes[users], lab.logs / "users.log") as crowd:
            stage, stack = Stage(lab, supervisor, {users: crowd}, Report()), Keepalived(Timers(**TIMERS))
            stack.start(stage, stage.l7)
            found = {"names": [stage.l4, stage.l7, stage.backends]}
            found |= serving(stage) | l4_orders(stage, stack) | l7_orders(stage, stack) | restart(stage, stack)
            found["deaths"] = [event.key for event in supervisor.events if re.match("exited|killed", event.what)]
            stage.close()
    return found


def until(condition, what):
    from lbnode.lab.wait import wait_until

    wait_until(condition, EFFECT_S, what, POLL_S)


def rows(stage, l4):
    """The names of the real servers of the first VIP on an L4 node, oldest row first, and what IPVS does with them."""
    from lbnode.agent import tables
    from lbnode.resources import ServiceKey

    key = str(ServiceKey(stage.vips[0], "tcp", 80))
    service = stage.node(l4).call(lambda: tables.read((), key))[key]
    return {
        "servers": [stage.name_of(row["address"]) for row in service["rows"]],
        "weights": [row["weight"] for row in service["rows"]],
        "scheduler": [service["scheduler"], *service["flags"]],
    }


def heard(stage, vip):
    """What the first router has heard of a VIP: L4 node -> MED."""
    router = stage.node(stage.lab.topology.routers[0])
    text = router.run(["birdc", "-s", "/run/lab/bird.ctl", "show", "route", "for", vip, "all"], check=True).stdout
    hops = re.findall(r"BGP.next_hop: (\S+)", text)
    return dict(zip(map(stage.name_of, hops), map(int, re.findall(r"BGP.med: (\d+)", text)), strict=True))


def serving(stage):
    from lbnode.lab.clients.crowd import pairs
    from lbnode.lab.scenarios import sight

    replies = stage.crowd.ask(pairs(stage.vips, stage.clients[::2]))
    tables = {name: sight.connections(stage.node(name)) for name in stage.l4}
    carried = {vip: [sum(flow.vip == vip for flow in table) for table in tables.values()] for vip in stage.vips}
    return {
        "replies": [[reply.vip, reply.status, reply.body.strip(), reply.problem] for reply in replies],
        "carried": carried,
        "echoed": echoed(stage),
        "rows": {name: rows(stage, name) for name in stage.l4},
        "processes": {name: children(stage, name) for name in stage.l4},
    }


def echoed(stage):
    """Who answers flows by UDP: VIP -> names. Each flow has one server throughout."""
    from lbnode.lab.scenarios.planned import datagrams

    stage.crowd.start("echoed", datagrams(stage, 40))
    reports = stage.finish("echoed", "by UDP")
    return {one.vip: sorted({row.backend for row in reports if row.vip == one.vip}) for one in stage.echoes}


def children(stage, l4):
    """The command lines of what ExaBGP on an L4 node has started."""
    pid = stage.supervisor.pid(stage.key(l4, "exabgp"))
    return stage.node(l4).run(["ps", "-o", "args=", "--ppid", str(inside(pid))]).stdout.splitlines()


def inside(pid):
    """A process id as its own node counts."""
    status = Path(f"/proc/{pid}/status").read_text()
    return re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)[1]


def l4_orders(stage, stack):
    vip = stage.vips[0]
    found = {"med": heard(stage, vip)}
    first = stage.l4[0]
    stack.l4_out(first)
    until(lambda: not stage.routed(first), f"no packets for {first}")
    found["med_out"] = heard(stage, vip)
    for name in stage.l4[1:]:
        stack.l4_out(name)
    until(lambda: set(heard(stage, vip).values()) == {1000}, "MED 1000 from everybody")
    until(lambda: all(map(stage.routed_fully, stage.l4)), "packets for all of those that are out")
    found["answers_all_out"] = answers(stage)
    for name in stage.l4:
        stack.l4_back(name)
    until(lambda: set(heard(stage, vip).values()) == {100}, "MED 100 from everybody")
    until(lambda: all(map(stage.routed_fully, stage.l4)), "packets for everybody")
    return found


def answers(stage):
    from lbnode.lab.clients.crowd import pairs

    return [reply.status for reply in stage.crowd.ask(pairs(stage.vips, stage.clients[::10]))]


def l7_orders(stage, stack):
    first, last = stage.l7[0], stage.l7[-1]
    stack.l7_drain(first)
    until(lambda: stack.uses(stage.l7[1:]), f"no row for {first}")
    found = {"rows_drained": {name: rows(stage, name) for name in stage.l4}, "answers_drained": answers(stage)}
    stack.l7_ready(first)
    until(lambda: stack.uses(stage.l7), f"a row for {first}")
    found["rows_ready"] = {name: rows(stage, name) for name in stage.l4}
    stack.set_l7([name for name in stage.l7 if name != last])
    until(lambda: stack.uses(stage.l7[:-1]), f"no row for {last}")
    stack.set_l7(stage.l7)
    until(lambda: stack.uses(stage.l7), f"a row for {last}")
    return found


def restart(stage, stack):
    name = stage.l4[0]
    key = stage.key(name, "keepalived")
    before, log = stage.supervisor.pid(key), stage.supervisor.log(key)
    standing = rows(stage, name)
    stack.restart_control(name)
    until(lambda: log.read_text().count("Startup complete") > 1, f"keepalived on {name}")
    return {
        "restarted": stage.supervisor.pid(key) not in (None, before),
        "rows_kept": rows(stage, name) == standing,
        "answers_restarted": answers(stage),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    work = tmp_path_factory.mktemp("keepalived")
    done = subprocess.run(
        [LBNODE, "lab", "kernel", "--", sys.executable, __file__, work],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((work / "found.json").read_text())


def test_every_vip_answers_every_client(found):
    _, _, backends = found["names"]
    assert not [reply for reply in found["replies"] if reply[1] != 200 or reply[2] not in backends]
    assert len({reply[0] for reply in found["replies"]}) == 7


def test_every_vip_by_udp_is_answered_by_all_of_its_servers(found):
    assert found["echoed"] == {"198.51.100.5": ["s1", "s2"], "2001:db8:c633:6401::5": ["s1", "s2"]}


def test_every_l4_node_carries_a_share_of_every_vip(found):
    assert all(min(counts) > 0 for counts in found["carried"].values()), found["carried"]


def test_the_tables_are_what_the_published_lab_makes(found):
    _, l7, _ = found["names"]
    for table in found["rows"].values():
        assert table["scheduler"] == ["mh", "mh-port"]
        assert sorted(table["servers"]) == sorted(l7)
        assert set(table["weights"]) == {1}


def test_one_health_check_per_family_on_each_l4_node(found):
    for processes in found["processes"].values():
        assert len(processes) == 2, processes
        assert all("-m exabgp.application.healthcheck" in line for line in processes), processes


def test_disable_does_not_withdraw_but_announces_with_a_higher_med(found):
    l4, _, _ = found["names"]
    assert found["med"] == dict.fromkeys(l4, 100)
    assert found["med_out"] == {**found["med"], l4[0]: 1000}


def test_when_all_l4_nodes_are_disabled_all_are_used(found):
    assert set(found["answers_all_out"]) == {200}


def test_down_deletes_the_l7_node_everywhere_and_up_makes_it_the_newest_row(found):
    _, l7, _ = found["names"]
    for name, table in found["rows_drained"].items():
        assert table["servers"] == [server for server in found["rows"][name]["servers"] if server != l7[0]]
        assert found["rows_ready"][name]["servers"] == [*table["servers"], l7[0]]
    assert set(found["answers_drained"]) == {200}


def test_a_killed_keepalived_comes_back_to_the_rows_it_has_left(found):
    assert found["restarted"]
    assert found["rows_kept"]
    assert set(found["answers_restarted"]) == {200}


def test_nothing_else_died(found):
    assert found["deaths"] == [f"{found['names'][0][0]}/keepalived"]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "found.json").write_text(json.dumps(watch(folder / "work")))
