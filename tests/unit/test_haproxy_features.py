"""Every feature of services and pools by real requests: one HAProxy with a service for each, on loopback."""

import json
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import yaml
from proxy import Agent, Node, free_ports, serving, until
from servers import Authority, Named, Reads, http2_frames, http2_server

from lbnode.config.model import Cluster
from lbnode.plan import Change

PORTS = (
    "tls", "clear", "modern", "strict", "plain", "routes", "sni", "hashed", "sticky", "append", "proxied", "told_v1",
    "told_v2", "limited", "refused", "broken", "away", "grpc", "squeezed", "raw", "secured", "doubtful", "slow",
    "spare", "web", "api", "secure_web", "h2", "one", "two", "nobody", "checked",
)  # fmt: skip

CLUSTER = """
services:
  www:
    ports: [{clear}, {tls}]
    tls: {{certificates: [{folder}/www.example.com.pem, {folder}/shop.example.com.pem], ports: [{tls}], hsts_s: 600}}
  modern:
    ports: [{modern}]
    tls: {{certificates: [{folder}/www.example.com.pem], ports: [{modern}], min_version: TLSv1.3}}
  strict:
    ports: [{strict}]
    tls: {{certificates: [{folder}/www.example.com.pem], ports: [{strict}], client_ca: {folder}/ca.pem}}
  plain: {{ports: [{plain}], raw: {{frontend: ["http-request set-header X-Version %[fc_http_major]"]}}}}
  routes:
    ports: [{routes}]
    routes:
      v1: {{hosts: [www.example.com], paths: [/api, /deep/er/], pool: api}}
      wild: {{hosts: ["*.example.com"], paths: [/api/v2], pool: api}}
      whole: {{hosts: [api.example.com], pool: api}}
      status: {{paths: [/status], pool: api}}
  sni: {{ports: [{sni}], mode: tcp, pool: nobody, routes: {{s: {{hosts: [www.example.com], pool: passed}}}}}}
  hashed: {{ports: [{hashed}], balance: header, balance_header: X-Tenant}}
  sticky: {{ports: [{sticky}], sticky_cookie: SRV, routes: {{api: {{paths: [/api], pool: api}}}}}}
  append: {{ports: [{append}], forwarded: append}}
  proxied: {{ports: [{proxied}], accept_proxy: [127.0.0.1/32]}}
  v1: {{ports: [{told_v1}], mode: tcp, pool: one}}
  v2: {{ports: [{told_v2}], mode: tcp, pool: two}}
  limited: {{ports: [{limited}], clients: {{requests: 5, per_s: 60}}}}
  refused:
    ports: [{refused}]
    accept_proxy: [127.0.0.1/32]
    clients: {{allow: [192.0.2.0/24], deny: [192.0.2.66/32]}}
  broken: {{ports: [{broken}], pool: nobody, pages: [{folder}/503.html]}}
  away: {{ports: [{away}], maintenance: true, maintenance_page: {folder}/soon.html}}
  grpc: {{ports: [{grpc}], pool: h2}}
  squeezed: {{ports: [{squeezed}], compression: true}}
  raw: {{ports: [{raw}], raw: {{frontend: ["http-response set-header X-Raw yes"]}}}}
  secured: {{ports: [{secured}], pool: secure}}
  doubtful: {{ports: [{doubtful}], pool: doubtful}}
  slow: {{ports: [{slow}], timeouts: {{server_s: 0.2}}}}
  spare: {{ports: [{spare}], pool: spare}}
pools:
  web: {{port: {web}}}
  api: {{nodes: [s1], port: {api}}}
  secure:
    nodes: [s1]
    port: {secure_web}
    tls: {{enabled: true, ca: {folder}/ca.pem, host: www.example.com}}
    check: {{type: tcp, interval_s: 5, fall: 3}}
  doubtful:
    nodes: [s1]
    port: {secure_web}
    tls: {{enabled: true, ca: {folder}/other/ca.pem, host: www.example.com}}
    check: {{type: tcp}}
  passed: {{nodes: [s1], port: {secure_web}, check: {{type: tcp}}}}
  one: {{nodes: [s1], port: {one}, proxy_protocol: v1, check: {{type: tcp}}}}
  two: {{nodes: [s1], port: {two}, proxy_protocol: v2, check: {{type: tcp}}}}
  h2: {{nodes: [s1], port: {h2}, protocol: h2, check: {{type: tcp}}}}
  nobody: {{nodes: [s1], port: {nobody}}}
  spare: {{port: {checked}, backup: [s2], check: {{path: /health, host: www.example.com, status: [200]}}}}
"""


@dataclass(frozen=True)
class Site:
    """Ports by name, and who stands behind them."""

    port: Mapping[str, int]
    folder: Path
    spares: tuple[Named, Named]
    reads: Mapping[str, Reads]

    def get(self, service: str, path: str = "/", **headers: str) -> tuple[HTTPResponse, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port[service], timeout=5)) as connection:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer, answer.read()

    def told(self, service: str, path: str = "/", **headers: str) -> dict[str, Any]:
        answer, body = self.get(service, path, **headers)
        assert answer.status == 200, (answer.status, body)
        found: dict[str, Any] = json.loads(body)
        return found

    def curl(self, service: str, *words: str, path: str = "/", host: str = "www.example.com") -> str:
        port = self.port[service]
        argv = ["curl", "-sS", "--max-time", "5", "--cacert", str(self.folder / "ca.pem"), "-i"]
        argv += ["--resolve", f"{host}:{port}:127.0.0.1", *words, f"https://{host}:{port}{path}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else f"curl: {done.returncode} {done.stderr}"

    def raw(self, service: str, data: bytes) -> bytes:
        """What comes back until the other side ends, or has sent a line."""
        with closing(socket.create_connection(("127.0.0.1", self.port[service]), timeout=5)) as connection:
            connection.sendall(data)
            found = b""
            while b"\n" not in found and (part := connection.recv(4096)):
                found += part
            return found


def cluster(ports: Mapping[str, int], node: Node, folder: Path) -> Cluster:
    found = yaml.safe_load(CLUSTER.format(folder=folder, **ports))
    for service in found["services"].values():
        service.setdefault("pool", "web")
        service["vips"] = ["127.0.0.1"]
    for pool in found["pools"].values():
        pool["agent_check"] = False
        # A check has no longer than its interval to connect, with TLS the handshake included.
        pool["check"] = {"interval_s": 0.1, "rise": 1, "fall": 3, **pool.get("check", {})}
    return Cluster.model_validate(
        {
            "bgp": {"local_asn": 65000, "peers": {"r1": {"address": "192.0.2.1", "asn": 65001}}},
            "nodes": {
                "l7": {"role": "l7", "ipv4": "127.0.0.1"},
                "s1": {"role": "backend", "ipv4": "127.0.0.1"},
                "s2": {"role": "backend", "ipv4": "127.0.0.2"},
            },
            **found,
            "health": {"port": node.health},
            "agent_check": {"port": node.agent},
            "haproxy": {"metrics_port": node.metrics},
        }
    )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb")))
        authority = Authority(folder)
        certificate = authority.certificate("www.example.com")
        authority.certificate("shop.example.com")
        Authority(folder / "other")
        (folder / "503.html").write_text("<html>Nobody is there</html>\n")
        (folder / "soon.html").write_text("<html>Back soon</html>\n")
        node = Node(folder)
        port = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        stack.enter_context(serving(Agent(node.agent)))
        for name, address in (("s1", "127.0.0.1"), ("s2", "127.0.0.2")):
            stack.enter_context(serving(Named(name, address, port["web"])))
        stack.enter_context(serving(Named("api", "127.0.0.1", port["api"])))
        secure = Named("secure", "127.0.0.1", port["secure_web"], authority.context(certificate))
        stack.enter_context(serving(secure))
        spares = (Named("s1", "127.0.0.1", port["checked"]), Named("s2", "127.0.0.2", port["checked"]))
        for spare in spares:
            stack.enter_context(serving(spare))
        reads = {name: Reads(port[name]) for name in ("one", "two")}
        for server in reads.values():
            stack.enter_context(serving(server))
        stack.enter_context(http2_server(folder / "nginx", port["h2"]))
        wanted = node.write(node.render(cluster(port, node, folder)))
        stack.enter_context(node.running())
        assert node.driver.apply([Change(None, wanted)])[0].error == ""
        unfit = ("broken:", "doubtful:", "sni:servers")
        until(
            lambda: (
                not [
                    row
                    for row in node.runtime.stat()
                    if row["status"] == "DOWN" and not row["pxname"].startswith(unfit)
                ]
            )
        )
        until(lambda: [row["status"] for row in node.runtime.stat("doubtful:servers 4 -1")] == ["DOWN"])
        yield Site(port, folder, spares, reads)


def test_tls_chooses_the_certificate_by_name_and_speaks_http2(site: Site) -> None:
    for host in ("www.example.com", "shop.example.com"):
        answer = site.curl("tls", "--http2", host=host)
        assert answer.startswith("HTTP/2 200"), answer
        assert '"x-forwarded-proto": "https"' in answer
        assert f'"x-forwarded-port": "{site.port["tls"]}"' in answer
        assert "strict-transport-security: max-age=600" in answer
    assert "curl: 60" in site.curl("tls", host="other.example.com"), "the certificate is verified in this test"


def test_clear_text_is_sent_to_tls(site: Site) -> None:
    answer, _ = site.get("clear", "/a?b=c", Host=f"shop.example.com:{site.port['clear']}")
    assert answer.status == 308
    assert answer.getheader("Location") == f"https://shop.example.com:{site.port['tls']}/a?b=c"
    assert answer.getheader("Strict-Transport-Security") is None


def test_the_oldest_version_of_tls(site: Site) -> None:
    assert site.curl("modern", "--tlsv1.3").startswith("HTTP/2 200")
    assert "curl: 35" in site.curl("modern", "--tls-max", "1.2")
    assert site.curl("tls", "--tls-max", "1.2").startswith("HTTP/2 200")
    assert "curl: 35" in site.curl("tls", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")


def test_clients_show_their_certificate(site: Site) -> None:
    refused = site.curl("strict")
    assert refused.startswith("curl: "), refused
    shown = ("--cert", str(site.folder / "shop.example.com.pem"), "-H", "X-Client-Cert-Subject: /CN=root")
    answer = site.curl("strict", *shown)
    assert '"x-client-cert-subject": "/CN=shop.example.com"' in answer, answer


@pytest.mark.parametrize(
    ("host", "path", "server"),
    [
        ("www.example.com", "/api", "api"),
        ("www.example.com", "/api/v1?q=/", "api"),
        ("WWW.example.com:80", "/api/", "api"),
        ("www.example.com", "/apis", "web"),
        ("www.example.com", "/deep/er", "api"),
        ("www.example.com", "/deep", "web"),
        ("www.example.com", "/", "web"),
        ("a.example.com", "/api/v2/x", "api"),
        ("a.example.com", "/api/v1", "web"),
        ("a.b.example.com", "/api/v2", "web"),
        ("api.example.com", "/", "api"),
        ("api.example.com", "/any/thing", "api"),
        ("else.example.org", "/status/x", "api"),
        ("else.example.org", "/x/status", "web"),
    ],
)
def test_routes(site: Site, host: str, path: str, server: str) -> None:
    found = site.told("routes", path, Host=host)
    assert found["server"] in (("api",) if server == "api" else ("s1", "s2"))
    assert found["path"] == path


def test_tls_is_passed_through_by_name(site: Site) -> None:
    assert '"server": "secure"' in site.curl("sni")
    assert site.curl("sni", host="other.example.com").startswith("curl: "), "the service's own pool has nobody"


def test_a_header_chooses_the_server(site: Site) -> None:
    homes = {
        tenant: {site.told("hashed", X_Tenant=tenant)["server"] for _ in range(4)} for tenant in map(str, range(20))
    }
    assert all(len(servers) == 1 for servers in homes.values())
    assert set().union(*homes.values()) == {"s1", "s2"}


def test_a_cookie_keeps_the_server(site: Site) -> None:
    answer, body = site.get("sticky")
    first = json.loads(body)["server"]
    cookie = str(answer.getheader("Set-Cookie"))
    assert cookie.startswith("SRV=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    word = cookie.split(";")[0]
    assert first not in word, "names of servers stay inside"
    seen = [site.told("sticky", Cookie=word) for _ in range(6)]
    assert {one["server"] for one in seen} == {first}
    assert all("SRV=" not in one["headers"].get("cookie", "") for one in seen)
    other, _ = site.get("sticky", "/api", Cookie=word)
    assert str(other.getheader("Set-Cookie")).startswith("SRV-api=")


def test_what_servers_are_told_of_the_client(site: Site) -> None:
    forged = {"X_Forwarded_For": "203.0.113.9", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example"}
    headers = site.told("plain", Host="www.example.com", **forged)["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == "www.example.com"
    headers = site.told("append", **forged)["headers"]
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-for"] in ("203.0.113.9", "127.0.0.1"), "two headers; the last one is kept here"


def test_the_proxy_protocol_from_whom_it_is_believed(site: Site) -> None:
    asked = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", site.port["proxied"]), timeout=5)) as connection:
        connection.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n" + asked)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b'"x-forwarded-for": "203.0.113.7"' in answer
    with closing(socket.socket()) as stranger:
        stranger.bind(("127.0.0.9", 0))
        stranger.settimeout(5)
        stranger.connect(("127.0.0.1", site.port["proxied"]))
        stranger.sendall(asked)
        answer = b"".join(iter(lambda: stranger.recv(4096), b""))
    assert b'"x-forwarded-for": "127.0.0.9"' in answer


def test_servers_are_told_by_the_proxy_protocol(site: Site) -> None:
    assert site.raw("told_v1", b"hello\n") == b"seen\n"
    assert site.raw("told_v2", b"hello\n") == b"seen\n"
    assert any(data.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") for data in site.reads["one"].first)
    assert any(data.startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11") for data in site.reads["two"].first)


def test_a_client_that_asks_too_often_gets_429(site: Site) -> None:
    answers = [site.get("limited")[0] for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 5 + [429] * 3
    assert answers[-1].getheader("Retry-After") == "60"


@pytest.mark.parametrize(("client", "status"), [("192.0.2.5", 200), ("192.0.2.66", 403), ("203.0.113.5", 403)])
def test_who_is_served(site: Site, client: str, status: int) -> None:
    asked = b"GET / HTTP/1.0\r\n\r\n"
    answer = site.raw("refused", f"PROXY TCP4 {client} 198.51.100.1 4711 80\r\n".encode() + asked)
    assert f" {status} ".encode() in answer


def test_pages(site: Site) -> None:
    answer, body = site.get("broken")
    assert (answer.status, body) == (503, b"<html>Nobody is there</html>\n")
    assert answer.getheader("Content-Type") == "text/html"
    answer, body = site.get("away")
    assert (answer.status, body) == (503, b"<html>Back soon</html>\n")
    assert answer.getheader("Retry-After") == "60"


def test_grpc_passes_with_its_trailers(site: Site) -> None:
    url = f"http://127.0.0.1:{site.port['grpc']}/package.Service/Method"
    argv = [
        "curl",
        "-sSv",
        "--http2-prior-knowledge",
        "-H",
        "Content-Type: application/grpc",
        "-H",
        "TE: trailers",
        url,
    ]
    done = subprocess.run([*argv, "-o", str(site.folder / "message")], capture_output=True, text=True, check=True)
    assert "< HTTP/2 200" in done.stderr
    assert "< x-spoken: HTTP/2.0" in done.stderr, "to the server too"
    assert (site.folder / "message").read_bytes() == bytes(5)
    kind, flags, trailers = http2_frames(site.port["grpc"], "/package.Service/Method")[-1]
    assert (kind, flags & 1) == (1, 1), "headers that end the stream"
    assert b"grpc-status" in trailers


def test_http2_without_tls(site: Site) -> None:
    url = f"http://127.0.0.1:{site.port['plain']}/"
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", url], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["headers"]["x-version"] == "2"
    assert site.told("plain")["headers"]["x-version"] == "1"


def test_websockets(site: Site) -> None:
    lines = ("GET /chat HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    asked = "\r\n".join([*lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]).encode()
    with closing(socket.create_connection(("127.0.0.1", site.port["plain"]), timeout=5)) as connection:
        connection.sendall(asked)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(1)
        assert b" 101 " in answer.splitlines()[0]
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # RFC 6455, 1.3
        for message in (b"one", b"two"):
            connection.sendall(message)
            assert connection.recv(16) == message


def test_texts_are_compressed_for_those_who_take_it(site: Site) -> None:
    answer, body = site.get("squeezed", Accept_Encoding="gzip")
    assert answer.getheader("Content-Encoding") == "gzip"
    assert len(body) < 1000
    assert site.get("squeezed")[0].getheader("Content-Encoding") is None


def test_raw_lines(site: Site) -> None:
    assert site.get("raw")[0].getheader("X-Raw") == "yes"


def test_certificates_of_servers_are_verified(site: Site) -> None:
    assert site.told("secured")["server"] == "secure"
    assert site.get("doubtful")[0].status == 503


def test_a_server_that_takes_too_long(site: Site) -> None:
    assert site.get("slow", "/slow")[0].status == 504
    assert site.get("slow")[0].status == 200


def test_a_backup_serves_when_no_other_can(site: Site) -> None:
    own, spare = site.spares
    assert Counter(site.told("spare")["server"] for _ in range(6)) == {"s1": 6}
    own.status = 204
    until(lambda: site.told("spare")["server"] == "s2")
    own.status = 200
    until(lambda: site.told("spare")["server"] == "s1")
    assert spare.paths
