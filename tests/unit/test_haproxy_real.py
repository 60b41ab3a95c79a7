"""A real HAProxy on loopback: what runs is seen, reloads are verified, and the health URI follows the enabler."""

import socket
import threading
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest
from proxy import Agent, Node, Page, Web, free_port, serving, until

from lbnode.errors import ApplyFailed, LbnodeError, NotReady
from lbnode.haproxy import program, render
from lbnode.haproxy.driver import HaproxyDriver
from lbnode.haproxy.reload import reload
from lbnode.haproxy.runtime import HttpStats, NotRunning
from lbnode.plan import Change, diff
from lbnode.resources import Row, Running, ServerState

UP = ServerState("enabler", "enabler", up=True)
DOWN = ServerState("enabler", "enabler", up=False)


def apply(node: Node, *rows: Row) -> list[str]:
    """Makes `rows` so, as a pass does; the errors."""
    results = node.driver.apply(diff(node.driver.observe([]).rows, rows).changes)
    return [result.error for result in results if result.error]


def test_what_runs_is_what_was_rendered(started: Node) -> None:
    digest = render.digest(started.paths.haproxy_config.read_text())
    assert started.rows() == (Running("haproxy", digest), UP)
    assert started.get(started.health) == 200
    assert started.get(started.health, host="::1") == 200
    assert started.get(started.health, "/other") == 404


def test_health_answers_close_their_connection_so_that_none_goes_on_asking_an_old_process(
    started: Node, agent: Agent
) -> None:
    for row in (UP, DOWN):
        agent.answer = b"up ready\n" if row.up else b"down\n"
        assert apply(started, started.rows()[0], row) == []
        with closing(HTTPConnection("127.0.0.1", started.health, timeout=3)) as connection:
            connection.request("GET", "/healthcheck")
            assert connection.getresponse().getheader("Connection") == "close"


def test_nothing_is_observed_when_it_does_not_run_and_the_error_says_how_to_start_it(node: Node) -> None:
    assert node.rows() == ()
    wanted = node.write(node.render(node.cluster()))
    driver = HaproxyDriver(node.paths, wait_s=0.05)
    assert driver.apply([Change(None, wanted)])[0].error == (
        "cannot reload HAProxy: it is not running: systemctl start lbnode-haproxy"
    )
    with pytest.raises(NotRunning):
        reload(node.paths, wait_s=0.05)


def test_a_reload_takes_and_is_verified(started: Node) -> None:
    before = started.runtime.info()["Pid"]
    wanted = started.write(started.render(started.cluster(balance="leastconn")))
    assert apply(started, wanted, UP) == []
    assert started.rows() == (wanted, UP)
    assert started.runtime.info()["Pid"] != before
    assert not started.paths.haproxy_state_file.exists()
    assert diff(started.rows(), [wanted, UP]).changes == ()


def test_a_broken_file_keeps_the_old_worker_and_is_reported(started: Node) -> None:
    good = started.paths.haproxy_config.read_text()
    started.write(good.replace("balance roundrobin", "balance nonsense"))
    before = started.runtime.info()["Pid"]
    with pytest.raises(ApplyFailed, match=r"old configuration still serves: parsing .*balance only supports"):
        reload(started.paths)
    assert started.runtime.info()["Pid"] == before
    assert started.get(started.health) == 200
    wanted = started.write(started.render(started.cluster(balance="leastconn")))
    assert apply(started, wanted, UP) == [], "a good file is taken after a bad one"


def test_a_bind_that_fails_is_reported_although_the_file_is_valid(started: Node) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = started.write(started.render(started.cluster(ports=[port])))
        assert program.check(started.paths.haproxy_config) == ""
        (error,) = apply(started, wanted, UP)
    assert "cannot reload HAProxy" in error
    # The master says why since 2.7.
    assert ("the file is valid" if program.version() < (2, 7) else "Address already in use") in error
    assert started.get(started.health) == 200


def test_a_file_of_another_plan_is_not_loaded(started: Node) -> None:
    (error,) = apply(started, Running("haproxy", "0" * 16), UP)
    assert "is not the file of this plan" in error


def test_the_health_uri_follows_the_enabler_without_a_check(started: Node, agent: Agent) -> None:
    started.agent_inter = "1h"
    running = started.write(started.render(started.cluster()))
    assert apply(started, running, UP) == []
    for row, status, answer in [(DOWN, 503, b"down\n"), (UP, 200, b"up ready 100%\n")] * 3:
        agent.answer = answer
        assert apply(started, running, row) == []
        assert started.get(started.health) == status
        assert started.rows() == (running, row)


def test_the_node_is_out_however_the_responder_says_it_and_comes_back_at_once(started: Node, agent: Agent) -> None:
    started.agent_inter = "50ms"
    running = started.write(started.render(started.cluster()))
    assert apply(started, running, UP) == []
    for answer in (b"down\n", b"up drain 100%\n", b"maint\n", b"up ready 0%\n"):
        agent.answer = answer
        until(lambda: started.rows() == (running, DOWN))
        assert started.get(started.health) == 503
        agent.answer = b"up ready 100%\n"
        assert apply(started, running, UP) == []
        assert started.get(started.health) == 200


def test_an_answer_that_was_on_its_way_does_not_bring_the_node_back(started: Node, agent: Agent) -> None:
    agent.may_answer.clear()
    agent.asked.clear()
    assert agent.asked.wait(2), "no agent check"
    agent.answer = b"down\n"
    late = threading.Timer(0.1, agent.may_answer.set)
    late.start()
    assert apply(started, started.rows()[0], DOWN) == []
    assert agent.may_answer.is_set(), "the order was not given again after the late answer"
    assert started.rows()[1] == DOWN
    assert started.get(started.health) == 503
    late.join()


def test_the_health_uri_fails_when_no_pool_has_a_server(node: Node, agent: Agent) -> None:
    wanted = node.write(node.render(node.cluster()))
    with node.running():
        assert node.driver.apply([Change(None, wanted)])[0].error == ""
        until(lambda: node.get(node.health) == 503)
        assert node.rows() == (wanted, UP)
        with serving(Web(("127.0.0.1", node.web), Page)):
            until(lambda: node.get(node.health) == 200)


def test_a_disabled_node_never_answers_200_during_reloads(started: Node, agent: Agent) -> None:
    agent.answer = b"down\n"
    assert apply(started, started.rows()[0], DOWN) == []
    configs = [started.render(started.cluster(balance=balance)) for balance in ("leastconn", "roundrobin")]
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(started.get(started.health))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(20):
            assert apply(started, started.write(configs[number % 2]), DOWN) == []
    finally:
        done.set()
        watcher.join()
    assert seen == {503}
    assert started.rows()[1] == DOWN
    agent.answer = b"up ready 100%\n"
    until(lambda: started.rows()[1] == UP)


def test_a_changed_port_is_not_overruled_by_the_old_state(started: Node, node: Node) -> None:
    old = node.web
    node.web = free_port()
    with serving(Web(("127.0.0.1", node.web), Page)):
        wanted = node.write(node.render(node.cluster(balance="leastconn")))
        assert apply(node, wanted, UP) == []
        ports = {row["srv_port"] for row in node.runtime.servers_state() if row["be_name"] == "web:servers"}
    assert ports == {str(node.web)} != {str(old)}


def test_a_server_known_to_be_down_stays_down_over_a_reload(started: Node) -> None:
    started.runtime.order("set server web:servers/s1 state maint")
    wanted = started.write(started.render(started.cluster(balance="leastconn")))
    assert apply(started, wanted, UP) == []
    (row,) = started.runtime.stat("web:servers 4 -1")
    assert row["status"] == "MAINT"


def test_the_client_is_told_to_the_server_and_cannot_pretend(started: Node) -> None:
    until(lambda: started.get(started.vip, "/") == 200)
    with closing(HTTPConnection("127.0.0.1", started.vip, timeout=3)) as connection:
        connection.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"})
        told = connection.getresponse().read().decode().lower()
    assert "x-forwarded-for: 127.0.0.1" in told
    assert "x-forwarded-proto: http\n" in told
    assert "203.0.113.9" not in told


def test_kept_client_connections_outlive_a_reload(started: Node) -> None:
    until(lambda: started.get(started.vip, "/") == 200)
    with ExitStack() as stack:
        kept = [stack.enter_context(closing(HTTPConnection("127.0.0.1", started.vip, timeout=3))) for _ in range(20)]
        for connection in kept:
            connection.request("GET", "/")
            assert connection.getresponse().read()
        assert apply(started, started.write(started.render(started.cluster(balance="leastconn"))), UP) == []
        for connection in kept:
            connection.request("GET", "/")
            assert connection.getresponse().read()


def test_statistics_are_the_same_over_both_transports(started: Node) -> None:
    over_socket = started.runtime.stat()
    over_http = HttpStats(f"http://127.0.0.1:{started.stats}/stats").stat()
    names = [(row["pxname"], row["svname"]) for row in over_socket]
    assert ("enabler", "enabler") in names
    assert ("web:servers", "s1") in names
    assert [(row["pxname"], row["svname"]) for row in over_http] == names
    assert over_http[0].keys() == over_socket[0].keys()
    assert started.get(started.stats, "/metrics") == 200


def test_commands_that_fail_say_so(started: Node) -> None:
    with pytest.raises(ApplyFailed, match="cannot set server enabler/nobody agent up: No such server"):
        started.runtime.order("set server enabler/nobody agent up")
    nobody = ServerState("enabler", "nobody", up=True)
    assert "No such server" in started.driver.apply([Change(None, nobody)])[0].error
    with pytest.raises(NotReady, match="cannot read statistics"):
        started.runtime.stat("nobody 4 -1")
    with pytest.raises(LbnodeError, match="cannot read statistics"):
        HttpStats(f"http://127.0.0.1:{free_port()}/stats").stat()
