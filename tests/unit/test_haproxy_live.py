"""Changes of a running HAProxy: which take a reload and which do not, and that both end as the file says."""

import json
import random
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from proxy import Agent, Node, free_port, serving, until
from servers import Authority, Named

from lbnode.config.model import Cluster
from lbnode.haproxy.configuration import sections, servers
from lbnode.reconcile import Pass

SERVERS = {f"s{number}": f"127.0.0.{number}" for number in (1, 2, 3, 4)}
RUNTIME = "by the runtime API"


class Site:
    """A running node, and a cluster file that tests change."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.tls = free_port()
        self.other = free_port()
        self.nodes: dict[str, dict[str, Any]] = {
            name: {"role": "backend", "ipv4": address} for name, address in list(SERVERS.items())[:2]
        }
        self.service: dict[str, Any] = {}
        self.pool: dict[str, Any] = {}
        self.servers = {name: Named(name, address, node.web) for name, address in SERVERS.items()}

    def cluster(self) -> Cluster:
        return Cluster.model_validate(
            {
                "bgp": {"local_asn": 65000, "peers": {"r1": {"address": "192.0.2.1", "asn": 65001}}},
                "nodes": {"l7": {"role": "l7", "ipv4": "127.0.0.1"}, **self.nodes},
                "services": {"web": {"vips": ["127.0.0.1"], "ports": [self.node.vip], "pool": "web", **self.service}},
                "pools": {
                    "web": {"port": self.node.web, "agent_check": False, "check": {"interval_s": 0.1}, **self.pool},
                    "one": {"port": self.node.web, "nodes": ["s1"], "agent_check": False},
                },
                "health": {"port": self.node.health},
                "agent_check": {"port": self.node.agent},
                "haproxy": {"metrics_port": self.node.metrics},
            }
        )

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.folder / "tls")

    @property
    def pid(self) -> str:
        return self.node.runtime.info()["Pid"]

    def make(self) -> Pass:
        """One pass, after which nothing is left to do, and the running HAProxy holds what its file says."""
        done = self.node.make(self.cluster())
        assert done.errors == []
        again = self.node.plan(self.cluster())
        assert again.changes == (), str(again)
        return done

    def ways(self) -> dict[str, str]:
        """What was changed in HAProxy by a pass, and how."""
        before = self.pid
        done = self.make()
        found = {result.change.row.title: result.way for result in done.results if result.way}
        assert (self.pid == before) == (set(found.values()) <= {RUNTIME}), found
        found.pop("metrics.acl", None)  # whose nodes come and go
        return found

    def told(self, path: str = "/", **headers: str) -> tuple[int, str]:
        with closing(HTTPConnection("127.0.0.1", self.node.vip, timeout=5)) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body)["server"] if answer.status == 200 else ""

    def seen(self, number: int = 24) -> Counter[str]:
        return Counter(self.told()[1] for _ in range(number))

    def certificate(self, name: str) -> str:
        """The subject of the one that is served for a name."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        context.check_hostname = False
        plain = HTTPConnection("127.0.0.1", self.tls, timeout=5)
        plain.connect()
        assert plain.sock is not None
        with plain.sock, context.wrap_socket(plain.sock, server_hostname=name) as secured:
            found = secured.getpeercert()
            assert found is not None
            return f"{found['subject'][0][0][1]} {found['serialNumber']}"


@pytest.fixture
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb")))
        node = Node(folder)
        site = Site(node, folder)
        stack.enter_context(serving(Agent(node.agent)))
        for server in site.servers.values():
            stack.enter_context(serving(server))
        node.write(node.render(site.cluster()))
        stack.enter_context(node.running())
        assert {result.way for result in site.make().results} <= {"", "by its start", RUNTIME}
        until(lambda: {row["status"] for row in node.runtime.stat("web:servers 4 -1")} == {"UP"})
        yield site


def test_servers_come_and_go_without_a_reload(site: Site) -> None:
    site.nodes["s3"] = {"role": "backend", "ipv4": SERVERS["s3"]}
    assert site.ways() == {"web:servers/s3": RUNTIME}
    assert site.seen() == {"s1": 8, "s2": 8, "s3": 8}
    until(lambda: site.node.runtime.stat("web:servers 4 -1")[-1]["check_status"] == "L7OK")
    del site.nodes["s1"]
    assert site.ways() == {"web:servers/s1": RUNTIME}
    assert site.seen() == {"s2": 12, "s3": 12}


def test_weights_and_addresses_change_without_a_reload(site: Site) -> None:
    site.nodes["s1"]["weight"] = 200
    assert site.ways() == {"web:servers/s1": RUNTIME}
    assert site.seen() == {"s1": 16, "s2": 8}
    site.nodes["s2"]["ipv4"] = SERVERS["s4"]
    assert site.ways() == {"web:servers/s2": RUNTIME}
    assert site.seen() == {"s1": 16, "s4": 8}


def test_a_weight_takes_a_reload_where_agents_are_asked(site: Site) -> None:
    site.pool["agent_check"] = True
    assert site.ways()["haproxy"].startswith("by a reload: backend web:servers")
    site.nodes["s1"]["weight"] = 200
    way = site.ways()["web:servers/s1"]
    assert way.startswith("by a reload: weight of web:servers/s1: its agent's percentages count")
    site.nodes["s3"] = {"role": "backend", "ipv4": SERVERS["s3"]}
    assert site.ways() == {"web:servers/s3": RUNTIME}
    assert set(site.seen()) == {"s1", "s2", "s3"}


def test_what_only_a_reload_can_change_says_why(site: Site) -> None:
    site.service["timeouts"] = {"client_s": 7}
    assert str(site.node.plan(site.cluster())).splitlines()[-1].endswith("# a reload: frontend web:clients")
    assert site.ways() == {"haproxy": "by a reload: frontend web:clients"}
    site.pool["check"] = {"interval_s": 0.2}
    assert site.ways() == {"haproxy": "by a reload: backend web:servers"}
    site.service["sticky_cookie"] = "SRV"
    site.ways()
    site.nodes["s3"] = {"role": "backend", "ipv4": SERVERS["s3"]}
    assert site.ways() == {"haproxy": "by a reload: backend web:servers"}, "cookies tie servers to the start before 3.0"
    site.nodes["s3"]["weight"] = 10
    assert site.ways() == {"web:servers/s3": RUNTIME}


def test_tables_change_without_a_reload(site: Site) -> None:
    site.service.update(
        routes={"api": {"paths": ["/api"], "pool": "one"}},
        clients={"deny": ["192.0.2.0/24"]},
    )
    site.ways()
    assert {site.told("/api")[1] for _ in range(6)} == {"s1"}
    site.service["routes"] = {"api": {"paths": ["/v2"], "pool": "one"}, "more": {"hosts": ["a.b"], "pool": "one"}}
    assert site.ways() == {"web:routes.map": RUNTIME}
    assert {site.told("/api")[1] for _ in range(6)} == {"s1", "s2"}
    assert {site.told("/v2")[1] for _ in range(6)} == {"s1"}
    site.service["clients"] = {"deny": ["192.0.2.0/24", "127.0.0.0/8", "2001:db8::/32"]}
    assert site.ways() == {"web:deny.acl": RUNTIME}
    assert site.told()[0] == 403
    site.service["clients"] = {"deny": ["192.0.2.0/24"]}
    site.service["maintenance"] = True
    assert site.ways() == {"web:deny.acl": RUNTIME, "maintenance.map": RUNTIME}
    assert site.told()[0] == 503
    site.service["maintenance"] = False
    assert site.ways() == {"maintenance.map": RUNTIME}
    assert site.told()[0] == 200


def test_certificates_are_renewed_and_come_and_go_without_a_reload(site: Site) -> None:
    paths = {name: site.authority.certificate(name) for name in ("one.example", "two.example", "three.example")}
    site.service.update(
        ports=[site.node.vip, site.tls],
        tls={
            "certificates": [str(paths["one.example"]), str(paths["two.example"])],
            "ports": [site.tls],
            "redirect": False,
        },
    )
    site.ways()
    before = site.certificate("two.example")
    assert before.startswith("two.example ")
    site.authority.certificate("two.example")
    assert site.ways() == {str(paths["two.example"]): RUNTIME}
    after = site.certificate("two.example")
    assert after.startswith("two.example ")
    assert after != before
    assert site.certificate("three.example").startswith("one.example ")
    site.service["tls"]["certificates"].append(str(paths["three.example"]))
    assert set(site.ways().values()) == {RUNTIME}
    assert site.certificate("three.example").startswith("three.example ")
    site.service["tls"]["certificates"].remove(str(paths["two.example"]))
    assert set(site.ways().values()) == {RUNTIME}
    assert site.certificate("two.example").startswith("one.example ")
    site.service["tls"]["certificates"].reverse()
    assert any("another certificate is the first one" in way for way in site.ways().values())
    assert site.certificate("two.example").startswith("three.example ")


def test_a_server_that_leaves_finishes_what_it_does(site: Site) -> None:
    site.service["raw"] = {"backend": ["default-server pool-purge-delay 50ms"]}
    assert site.ways() == {"haproxy": "by a reload: backend web:servers"}
    with closing(HTTPConnection("127.0.0.1", site.node.vip, timeout=10)) as slow:
        before = site.servers["s1"].paths, site.servers["s2"].paths
        slow.request("POST", "/slow", headers={"Content-Length": "1"})
        until(lambda: "/slow" in [*before[0], *before[1]])
        busy = "s1" if "/slow" in before[0] else "s2"
        other = {"s1": "s2", "s2": "s1"}[busy]
        kept = site.nodes.pop(busy)
        assert site.make().errors == []
        assert set(site.seen(8)) == {other}
        left = site.node.plan(site.cluster())
        assert left.changes == ()
        assert f"server web:servers/{busy} leaves when its 1 connections have ended" in left.foreign
        # It is wanted again before it has left.
        site.nodes[busy] = kept
        site.make()
        assert set(site.seen(8)) == {"s1", "s2"}
        del site.nodes[busy]
        site.make()
        slow.send(b"x")
        assert slow.getresponse().status == 200
    until(lambda: site.node.plan(site.cluster()).foreign == ())
    site.make()
    assert [row["svname"] for row in site.node.runtime.stat("web:servers 4 -1")] == [other]


def test_what_others_change_by_hand_is_repaired(site: Site) -> None:
    site.node.runtime.order("set server web:servers/s1 weight 7")
    site.node.runtime.command("add server web:servers/foreign 127.0.0.9:1")
    assert site.ways() == {"web:servers/s1": RUNTIME, "web:servers/foreign": RUNTIME}
    assert site.seen() == {"s1": 12, "s2": 12}


def test_any_sequence_of_changes_ends_as_the_file_says_without_a_reload(site: Site) -> None:
    dice = random.Random(20261120)  # noqa: S311 - the same each time
    pid = site.pid
    for _ in range(25):
        names = dice.sample(sorted(SERVERS), dice.randint(1, 4))
        site.nodes = {
            name: {"role": "backend", "ipv4": SERVERS[name], "weight": dice.choice([50, 100, 200])}
            for name in sorted({*names, "s1"})
        }
        site.make()
        states = {
            (state["srv_name"], state["srv_addr"], state["srv_uweight"])
            for state in site.node.runtime.servers_state("web:servers")
        }
        assert states == {(name, node["ipv4"], str(node["weight"])) for name, node in site.nodes.items()}
        written = servers(sections(site.node.paths.haproxy_config.read_text()))
        assert {row.server for row in written if row.backend == "web:servers"} == set(site.nodes)
    assert site.pid == pid


def test_a_failed_reload_keeps_the_old_worker_and_puts_the_old_files_back(site: Site) -> None:
    paths = site.node.paths
    site.service["routes"] = {"old": {"hosts": ["old.example.com"], "pool": "one"}}
    site.make()
    routes = next(paths.haproxy_tables.glob("*:routes.map"))
    good, held = (path.read_text() for path in (paths.haproxy_config, routes))
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site.service["ports"] = [site.node.vip, taken.getsockname()[1]]
        site.service["routes"] = {"new": {"hosts": ["new.example.com"], "pool": "one"}}
        pid = site.pid
        done = site.node.make(site.cluster())
        assert "cannot reload HAProxy, the old configuration still serves" in done.errors[0]
        assert site.pid == pid
        assert (paths.haproxy_config.read_text(), routes.read_text()) == (good, held)
        assert site.told()[0] == 200
    site.make()


def test_no_request_fails_while_servers_change(site: Site) -> None:
    stop = threading.Event()
    statuses: Counter[int] = Counter()

    def ask() -> None:
        while not stop.wait(0.001):  # as fast as it goes, they only keep the pass from its processor
            statuses[site.told()[0]] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(10):
        site.nodes["s3"] = {"role": "backend", "ipv4": SERVERS["s3"], "weight": 10 + number}
        site.make()
        del site.nodes["s3"]
        site.node.make(site.cluster())
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
