"""Servers that stand behind HAProxy in tests: each tells what it was told, by name, in JSON."""

import base64
import json
import socket
import socketserver
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from proxy import Web, serving, until

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 4.2.2


class Told(BaseHTTPRequestHandler):
    """Answers `{"server": ..., "path": ..., "headers": {...}}`; upgrades to a WebSocket that sends back what it gets;
    waits until the test says so under /slow; checks get `status`."""

    protocol_version = "HTTP/1.1"
    server: "Named"

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.upgrade()
            return
        if self.path == "/slow":
            self.rfile.read(1)  # until the other side has had enough
        status = self.server.status if self.path == "/health" else 200
        told = {
            "server": self.server.name,
            "path": self.path,
            "headers": {k.lower(): v for k, v in self.headers.items()},
        }
        body = json.dumps(told).encode() + b" " * 2000
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - a name of http.server's

    def upgrade(self) -> None:
        key = base64.b64encode(
            sha1(f"{self.headers['Sec-WebSocket-Key']}{GUID}".encode(), usedforsecurity=False).digest()
        )
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", key.decode()),
        ):
            self.send_header(name, value)
        self.end_headers()
        while data := self.connection.recv(1024):
            self.connection.sendall(data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Named(Web):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, address: str, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__((address, port), Told)
        self.name = name
        self.status = 200
        self.paths: list[str] = []
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)


class Reads(socketserver.ThreadingTCPServer):
    """Keeps the first bytes of every connection."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _First)
        self.first: list[bytes] = []


class _First(socketserver.BaseRequestHandler):
    server: Reads

    def handle(self) -> None:
        if data := self.request.recv(256):
            self.server.first.append(data)
            with suppress(ConnectionError):  # a check has gone already
                self.request.sendall(b"seen\n")


class Authority:
    """A certificate authority of the test's own."""

    NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"  # made in no time, unlike RSA's

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self._openssl(f"req -x509 {self.NEW_KEY} -days 2 -subj /CN=tests", "-keyout", "ca.key", "-out", "ca.pem")

    def certificate(self, name: str) -> Path:
        """Certificate and key of a name, in one PEM file."""
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-addext", f"subjectAltName=DNS:{name}")
        self._openssl(f"req {self.NEW_KEY} -subj /CN={name}", *request)
        extensions = self.folder / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{name}\n")
        signed = ("-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", str(extensions))
        self._openssl("x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2", *signed)
        path = self.folder / f"{name}.pem"
        path.write_text("".join((self.folder / f"{name}.{end}").read_text() for end in ("crt", "key")))
        return path

    def context(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    def _openssl(self, command: str, *more: str) -> None:
        subprocess.run(["openssl", *command.split(), *more], cwd=self.folder, check=True, capture_output=True)


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} http2;
    default_type application/grpc;
    add_header X-Spoken $server_protocol;
    add_trailer grpc-status 0;
    location / {{ root {folder}/files; try_files /reply =404; }}
  }}
}}
"""


@contextmanager
def http2_server(folder: Path, port: int) -> Iterator[None]:
    """nginx, which speaks HTTP/2 without TLS, and ends each answer with gRPC's trailer."""
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "reply").write_bytes(bytes(5))  # an empty message of gRPC
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        yield
    finally:
        process.terminate()
        process.wait(10)


def http2_frames(port: int, path: str) -> list[tuple[int, int, bytes]]:
    """Type, flags and payload of each frame of the answer to one request, which wants trailers (RFC 9113, 4.1)."""
    pairs = ((":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a"), ("te", "trailers"))
    block = b"".join(b"\0" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in pairs)
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    headers = len(block).to_bytes(3, "big") + bytes([1, 5, 0, 0, 0, 1])
    found: list[tuple[int, int, bytes]] = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers + block)
        while not (found and found[-1][0] in (0, 1) and found[-1][1] & 1):
            head = stream.read(9)
            found.append((head[3], head[4], stream.read(int.from_bytes(head[:3], "big"))))
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


__all__ = ["Authority", "Named", "Reads", "http2_frames", "http2_server", "listens", "serving"]
