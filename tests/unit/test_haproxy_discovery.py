"""Servers of a pool that nobody lists: by tags of the cluster file, and by DNS, which is asked again and again."""

import json
import socket
import socketserver
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from proxy import Agent, Node, serving, until
from servers import Named

from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.errors import ConfigError

A, SRV = 1, 33


class NameServer(socketserver.ThreadingUDPServer):
    """Answers A and SRV questions from `addresses`: numbers of 127.0.0.N."""

    daemon_threads = True

    def __init__(self, port: int, web: int) -> None:
        super().__init__(("127.0.0.1", port), _Question)
        self.web = web
        self.addresses = [1, 2]


class _Question(socketserver.BaseRequestHandler):
    server: NameServer

    def handle(self) -> None:
        data, sender = self.request
        end = data.index(b"\0", 12) + 5
        labels, kind = data[12 : end - 4], struct.unpack("!H", data[end - 4 : end - 2])[0]
        if kind == A and labels[1:2] == b"s" and labels[2:3].isdigit():
            answers = [self._a(int(labels[2:3]))]
        elif kind == A:
            answers = [self._a(number) for number in self.server.addresses]
        elif kind == SRV:
            answers = [self._srv(number) for number in self.server.addresses]
        else:
            answers = []
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, len(answers), 0, 0)
        sender.sendto(head + data[12:end] + b"".join(answers), self.client_address)

    def _a(self, number: int) -> bytes:
        return struct.pack("!HHHIH", 0xC00C, A, 1, 1, 4) + bytes((127, 0, 0, number))

    def _srv(self, number: int) -> bytes:
        target = b"\2s%d\7example\0" % number
        return struct.pack("!HHHIHHHH", 0xC00C, SRV, 1, 1, 6 + len(target), 1, 100, self.server.web) + target


class Site:
    def __init__(self, node: Node, names: NameServer) -> None:
        self.node, self.names = node, names

    def seen(self) -> set[str]:
        found: Counter[str] = Counter()
        for _ in range(8):
            with closing(HTTPConnection("127.0.0.1", self.node.vip, timeout=5)) as connection:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read()
                found[json.loads(body)["server"] if answer.status == 200 else str(answer.status)] += 1
        return set(found)


@pytest.fixture(params=["A", "SRV"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with ExitStack() as stack:
        node = Node(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb"))))
        names = NameServer(free_port_udp(), node.web)
        stack.enter_context(serving(names))
        stack.enter_context(serving(Agent(node.agent)))
        for number in (1, 2, 3):
            stack.enter_context(serving(Named(f"s{number}", f"127.0.0.{number}", node.web)))
        data = json.loads(node.cluster().model_dump_json())
        name = "app.example" if request.param == "A" else "_http._tcp.app.example"
        data["pools"]["app"]["dns"] = {"name": name, "type": request.param, "slots": 4}
        port = names.server_address[1]
        data["haproxy"]["resolvers"] = {"servers": ["127.0.0.1"], "port": port, "valid_s": 0.1}
        cluster = Cluster.model_validate(data)
        node.write(node.render(cluster))
        stack.enter_context(node.running())
        assert node.make(cluster).errors == []
        site = Site(node, names)
        until(lambda: site.seen() == {"s1", "s2"})
        assert node.plan(cluster).changes == (), "what HAProxy finds itself is left to it"
        yield site
        assert node.plan(cluster).changes == ()


def free_port_udp() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_servers_follow_the_name_without_a_reload(site: Site) -> None:
    pid = site.node.runtime.info()["Pid"]
    site.names.addresses = [3]
    until(lambda: site.seen() == {"s3"}, 15)
    site.names.addresses = [1, 2, 3]
    until(lambda: site.seen() == {"s1", "s2", "s3"}, 15)
    assert site.node.runtime.info()["Pid"] == pid


TEXT = """\
bgp: {local_asn: 65001, peers: {r4: {address: 192.0.2.129, asn: 65000}}}
nodes:
  l4-1: {role: l4, ipv4: 192.0.2.141}
  l7-1: {role: l7, ipv4: 192.0.2.148}
  s1: {role: backend, ipv4: 192.0.2.181, tags: [app, new]}
  s2: {role: backend, ipv4: 192.0.2.182, tags: [app]}
  s3: {role: backend, ipv4: 192.0.2.183}
services: {www: {vips: [198.51.100.200], pool: web%s}}
pools: {web: {%s}}
"""


@pytest.mark.parametrize(
    ("tags", "names"), [("[app]", ["s1", "s2"]), ("[new, app]", ["s1"]), ("[]", ["s1", "s2", "s3"])]
)
def test_a_pool_has_the_nodes_with_all_of_its_tags(tags: str, names: list[str]) -> None:
    assert list(parse(TEXT % ("", f"tags: {tags}")).members("web")) == names


@pytest.mark.parametrize(
    ("service", "pool", "problem"),
    [
        ("", "tags: [old]", "pool 'web' has no node (give a backend its tags)"),
        ("", "tags: [app], nodes: [s1]", "'tags' has no effect beside 'nodes'"),
        ("", "dns: {slots: 3}", "'slots' has no effect without 'name'"),
        ("", "dns: {name: app.example}, nodes: [s1]", "'nodes' has no effect beside 'dns'"),
        ("", "dns: {name: 'a b'}", "'a b' is not a DNS name"),
        (", through: backend", "dns: {name: app.example}", "goes through: backend, but pool 'web' is found by DNS"),
        (", sticky_cookie: S", "dns: {name: app.example}", "'sticky_cookie' cannot be used with pool 'web'"),
    ],
)
def test_servers_are_found_in_one_way(service: str, pool: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TEXT % (service, pool))
    assert problem in str(caught.value)
    assert len(caught.value.problems) == 1
