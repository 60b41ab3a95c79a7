"""What `lbnode status` shows of an L7 node's HAProxy, from a real one over both transports."""

from contextlib import ExitStack, closing
from http.client import HTTPConnection

from proxy import Agent, Node, until

from lbnode.haproxy import program, stats
from lbnode.haproxy.runtime import HttpStats, Processes
from lbnode.plan import Change


def test_services_and_servers_with_what_they_do(started: Node) -> None:
    until(lambda: started.get(started.vip, "/") == 200)
    for transport in (started.runtime, HttpStats(f"http://127.0.0.1:{started.stats}/stats")):
        (service,) = stats.services(transport.stat())
        assert service.name == "web"
        assert (service.up, len(service.servers)) == (1, 1)
        assert service.total >= 1
        assert service.servers[0].total >= 1
        assert service.servers[0].status.startswith("UP")
        assert service.servers[0].why == ""


def test_why_a_server_is_out(started: Node) -> None:
    server = "web:servers/s1"

    def why() -> str:
        return stats.services(started.runtime.stat())[0].servers[0].why

    started.runtime.order(f"set server {server} state maint")
    assert why() == "maintenance"
    started.runtime.order(f"set server {server} state drain")
    assert why() == "draining"
    started.runtime.order(f"set server {server} state ready")
    started.runtime.order(f"set server {server} weight 0")
    assert why() == "weight 0"
    started.runtime.order(f"set server {server} weight 100")
    started.runtime.command(f"set server {server} addr 127.0.0.1 port 1")
    until(lambda: why().startswith("its check: L4CON ") and "Connection refused" in why())
    (line, told) = stats.lines(stats.summary(started.runtime.stat(), Processes(0, ())))
    assert line.startswith("service web: ")
    assert line.endswith("# 0 of 1 servers up")
    assert told == f"  server web:servers/s1: DOWN, 0 sessions  # {why()}"


def test_what_an_agent_says(node: Node, agent: Agent) -> None:
    cluster = node.cluster()
    asked = cluster.model_copy(update={"pools": {"app": cluster.pools["app"].model_copy(update={"agent_check": True})}})
    agent.answer = b"stopped # planned work\n"
    node.write(node.render(asked))
    with node.running():
        until(node.rows)
        until(lambda: stats.services(node.runtime.stat())[0].servers[0].why.startswith("its agent says so: L7STS"))
        (server,) = stats.services(node.runtime.stat())[0].servers
        assert "planned work" in server.why


def test_old_processes_are_shown_while_they_have_sessions(started: Node) -> None:
    until(lambda: started.get(started.vip, "/") == 200)
    with ExitStack() as stack:
        kept = stack.enter_context(closing(HTTPConnection("127.0.0.1", started.vip, timeout=5)))
        kept.request("GET", "/")
        assert kept.getresponse().read()
        before = started.runtime.info()["Pid"]
        wanted = started.write(started.render(started.cluster(balance="leastconn")))
        assert started.driver.apply([Change(started.rows()[0], wanted)])[0].error == ""
        seen = program.seen(started.paths)
        assert seen is not None
        assert [old["pid"] for old in seen["old_processes"]] == [before]
        assert f"old HAProxy process {before}" in stats.lines(seen)[-1]
        kept.request("GET", "/")
        assert kept.getresponse().read()
    until(lambda: (program.seen(started.paths) or {"old_processes": [1]})["old_processes"] == [])


def test_haproxys_own_metrics_are_for_those_who_may_ask(started: Node) -> None:
    port = started.metrics
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        assert b"haproxy_frontend_http_requests_total{" in connection.getresponse().read()
    with closing(HTTPConnection("127.0.0.1", port, timeout=5, source_address=("127.0.0.9", 0))) as stranger:
        stranger.request("GET", "/metrics")
        assert stranger.getresponse().status == 403
