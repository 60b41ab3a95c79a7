"""What the agent tells other machines: a few pages by HTTP, read-only, to those who may ask and to nobody else.

Small on purpose, for it stands beside the data path of a machine that strangers send packets to: GET alone, one request
a connection, no more connections at once than CONNECTIONS, none longer than PATIENCE_S, and a stranger's is closed
before a byte of it is read. Pages are made in a thread, one at a time.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from lbnode.config.model import Cluster
from lbnode.errors import LbnodeError

CONNECTIONS = 32
PATIENCE_S = 10.0
HEAD_MAX = 8192
FREEBIND, FREEBIND_V6 = 15, 78  # include/uapi/linux/in.h, in6.h
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Page(NamedTuple):
    """What is sent: `kind` is the Content-Type."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


Maker = Callable[[Mapping[str, str]], Page]
"""Makes a page from the query of its URL; called in a thread. What it cannot do it raises as LbnodeError."""


class Guests:
    """Who may ask: the cluster's own nodes, this machine, and the networks that the cluster file allows besides."""

    def __init__(self, cluster: Cluster, allow: Iterable[IPv4Network | IPv6Network]) -> None:
        nodes = cluster.nodes.values()
        self._nodes = {address for node in nodes for address in (node.ipv4, node.ipv6) if address is not None}
        self._networks = (*LOOPBACK, *allow)

    def __contains__(self, address: object) -> bool:
        """`address` as text; an IPv6 one may carry a scope."""
        try:
            asked = ip_address(str(address).partition("%")[0])
        except ValueError:
            return False
        return asked in self._nodes or any(asked in network for network in self._networks)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at that address, be it there yet or not: links may come up after the agent. Raises OSError."""
    six = ":" in host
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP, FREEBIND_V6 if six else FREEBIND, 1)
        made.bind((host, port))
        made.listen(CONNECTIONS)
    except OSError:
        made.close()
        raise
    return made


class Site:
    """The pages by path, on a node's own addresses and loopback. `follow` makes it so, and again when that changes."""

    def __init__(self, name: str, pages: Mapping[str, Maker]) -> None:
        self._name, self._pages = name, pages
        self._guests: Guests | None = None
        self._cluster: Cluster | None = None
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._making = asyncio.Lock()
        self._open: set[asyncio.StreamWriter] = set()

    async def follow(self, cluster: Cluster) -> str:
        """Listens where the cluster file says; what it cannot is tried again at the next call. Returns what is wrong,
        "" when nothing is: a port that is taken must not end an agent."""
        if cluster is not self._cluster:
            self._cluster, self._guests = cluster, Guests(cluster, cluster.metrics.allow)
        node, port = cluster.nodes[self._name], cluster.metrics.port
        own = [str(address) for address in (node.ipv4, node.ipv6) if address is not None]
        wanted = {(host, port) for host in (*own, "127.0.0.1", "::1")} if port else set()
        for place in self._servers.keys() - wanted:
            self._servers.pop(place).close()
        problems = []
        for host, _ in sorted(wanted - self._servers.keys()):
            error = await self._listen(host, port)
            # A machine without IPv6 has no ::1, and needs none.
            if error and not (host == "::1" and error.errno == errno.EAFNOSUPPORT):
                problems.append(f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}")
        return "; ".join(problems)

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _listen(self, host: str, port: int) -> OSError | None:
        try:
            listening = _bound(host, port)
        except OSError as error:
            return error
        server = await asyncio.start_server(self._connected, sock=listening, limit=HEAD_MAX, backlog=CONNECTIONS)
        self._servers[host, port] = server
        return None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = (writer.get_extra_info("peername") or [""])[0]
        if self._guests is None or peer not in self._guests or len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(PATIENCE_S):
                page = await self._answer(reader)
                head = f"HTTP/1.1 {page.status} {REASONS[page.status]}\r\nContent-Type: {page.kind}\r\n"
                head += f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + page.body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader) -> Page:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        except (asyncio.LimitOverrunError, ValueError):
            return Page(b"cannot understand the request\n", status=400)
        if method != "GET":
            return Page(b"cannot do that: this site is read-only\n", status=405)
        with suppress(ValueError):
            asked = urlsplit(target)
            make = self._pages.get(asked.path)
            if make is not None:
                query = {key: values[-1] for key, values in parse_qs(asked.query).items()}
                return await self._make(make, query)
        return Page(f"no such page; there is {', '.join(self._pages)}\n".encode(), status=404)

    async def _make(self, make: Maker, query: Mapping[str, str]) -> Page:
        async with self._making:
            try:
                return await asyncio.to_thread(make, query)
            except LbnodeError as error:
                return Page(f"{error}\n".encode(), status=503)
