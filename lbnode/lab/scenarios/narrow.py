"""The step that sends megabytes through a narrow path: full packets do not fit, and whoever sends them must learn it.

Before the routers: a router's ICMP error about an answer is addressed to the VIP, and reaches an L4 node that need not
have the flow. Among the nodes: neither the clients' packets fit nor those that IPVS has put into a tunnel.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

from lbnode.lab import web
from lbnode.lab.account import Flow
from lbnode.lab.clients.crowd import pairs
from lbnode.lab.links import in_node, index_of
from lbnode.lab.scenarios import sight
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage

MEGABYTE = 1_000_000
NARROW, WIDE = 1400, 1500
CLIENTS = 7
PATIENCE_S = 10.0
SLOW_S = 3.0


class Transfer(NamedTuple):
    """One megabyte, there or back; `problem` is empty when all of it arrived as it was sent."""

    flow: Flow
    seconds: float
    problem: str


class Seen(NamedTuple):
    """A transfer, and afterwards the L4 nodes that have its flow in their tables: name -> real server."""

    transfer: Transfer
    holders: dict[str, str]

    @property
    def version(self) -> int:
        return 6 if ":" in self.transfer.flow.vip else 4


def path_mtu(stage: Stage) -> None:
    """Uploads and downloads between several clients and every VIP, at MTU 1400 here and there."""
    infra = stage.lab.topology.machines[stage.l4[0]].ports[0].lan
    routers = [stage.lab.topology.machines[name] for name in stage.lab.topology.routers]
    outer = [port.lan for router in routers for port in router.ports if port.lan != infra]
    with narrowed(stage, outer):
        _whole(stage, "uploads", "before the routers")
        _errors_find_their_server(stage, _whole(stage, "downloads", "before the routers", batch=1))
    with narrowed(stage, [infra]):
        _whole(stage, "uploads", "among the nodes")
        _whole(stage, "downloads", "among the nodes")


@contextmanager
def narrowed(stage: Stage, lans: Sequence[str]) -> Iterator[None]:
    """LANs with a small MTU; afterwards everybody forgets what was learned of it."""
    _set_mtu(stage, lans, NARROW)
    try:
        yield
    finally:
        _set_mtu(stage, lans, WIDE)
        forget(stage)


def forget(stage: Stage) -> None:
    """Nobody who sends full packets has a path MTU in its route cache any more."""
    for name in (stage.lab.topology.clients.name, *stage.l7, *stage.backends):
        for family in ("-4", "-6"):
            stage.node(name).run(("ip", family, "route", "flush", "cache"), check=True)


def _set_mtu(stage: Stage, lans: Sequence[str], mtu: int) -> None:
    for machine in stage.lab.topology.machines.values():
        for port in machine.ports:
            if port.lan in lans:
                in_node(stage.node(machine.name), partial(_device_mtu, device=port.lan, mtu=mtu))


def _device_mtu(netlink: Any, device: str, mtu: int) -> None:
    netlink.link("set", index=index_of(netlink, device), mtu=mtu)


def _whole(stage: Stage, verb: str, where: str, batch: int = 1000) -> list[Seen]:
    """A megabyte for each of some clients and each VIP, one after the other: all of it arrives, by every L4 node.

    `batch`: after how many of them the L4 nodes' tables are read.
    """
    forget(stage)
    asks = pairs(stage.vips, [*stage.clients[:CLIENTS], *stage.clients[-CLIENTS:]])
    transfer = _upload if verb == "uploads" else _download
    done = [seen for at in range(0, len(asks), batch) for seen in _run(stage, asks[at : at + batch], transfer)]
    wrong = [one for one in done if one.transfer.problem]
    expect(not wrong, f"{verb} of 1 MB through MTU {NARROW} {where}", f"{len(wrong)} failed, such as {wrong[:1]}")
    slowest = max(one.transfer.seconds for one in done)
    expect(slowest < SLOW_S, f"{verb} without a stall", f"{slowest:.1f} s for the slowest")
    for version in (4, 6):
        mine = [one for one in done if one.version == version]
        shares = [sum(name in one.holders for one in mine) for name in stage.l4]
        expect(min(shares) > 0, f"IPv{version} {verb} by every L4 node", shares)
        counts = "/".join(map(str, shares))
        stage.report.found(f"MTU {NARROW} {where}: {len(mine)} IPv{version} {verb} of 1 MB, all whole; by L4 {counts}")
    return done


def _errors_find_their_server(stage: Stage, downloads: Sequence[Seen]) -> None:
    """An L4 node that gets an ICMP error about a flow of another one makes an entry for it, for 2 s (schedule_icmp;
    ip_vs_proto_tcp.c, IP_VS_TCP_S_NONE), and sends it to the real server that the flow is on."""
    astray = [one for one in downloads if len(set(one.holders.values())) > 1]
    expect(not astray, "the same real server by every L4 node", astray[:1])
    strayed = [one.version for one in downloads if len(one.holders) > 1]
    expect(strayed, "errors at L4 nodes without the flow", "none strayed")
    stage.report.found(
        f"of {len(downloads)} downloads, {strayed.count(4)} IPv4 and {strayed.count(6)} IPv6 ones had an error by an L4"
        " node without the flow"
    )


def _run(stage: Stage, asks: Sequence[tuple[str, str]], transfer: Callable[[str, str], Transfer]) -> Iterator[Seen]:
    done = stage.node(stage.lab.topology.clients.name).call(lambda: [transfer(*ask) for ask in asks])
    tables = {name: sight.connections(stage.node(name)) for name in stage.l4}
    for one in done:
        yield Seen(one, {name: table[one.flow] for name, table in tables.items() if one.flow in table})


def _upload(source: str, vip: str) -> Transfer:
    return _transfer(source, vip, "PUT", "/upload", str(MEGABYTE).encode())


def _download(source: str, vip: str) -> Transfer:
    return _transfer(source, vip, "GET", f"/files/{web.SIZES[-1]}", web.content(0, MEGABYTE))


def _transfer(source: str, vip: str, method: str, path: str, expected: bytes) -> Transfer:
    began = time.monotonic()
    connection = HTTPConnection(vip, 80, timeout=PATIENCE_S, source_address=(source, 0))
    port, problem = 0, ""
    try:
        connection.connect()
        port = int(connection.sock.getsockname()[1])
        body = web.content(0, MEGABYTE) if method == "PUT" else None
        connection.request(method, path, body, {"Range": f"bytes=0-{MEGABYTE - 1}"} if body is None else {})
        got = connection.getresponse().read().strip() if body else connection.getresponse().read()
        problem = "" if got == expected else f"{len(got)} bytes: {got[:40]!r}"
    except (OSError, HTTPException) as error:
        problem = repr(error)
    finally:
        connection.close()
    return Transfer(Flow(source, port, vip), time.monotonic() - began, problem)
