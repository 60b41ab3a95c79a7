"""A router of a measurement: BIRD in a namespace, and who notices at once what its kernel routes where.

The kernel itself tells of every change (rtnetlink(7), RTMGRP_IPV4_ROUTE); the table is then read again, so that nothing
depends on understanding single messages.
"""

import select
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from lbnode.lab.errors import LabError
from lbnode.lab.namespaces import Node
from lbnode.lab.scenarios.sight import Routes

RTMGRP_IPV4_ROUTE = 0x40
CONF, CONTROL = Path("/run/bird.conf"), Path("/run/bird.ctl")
HEAD = """\
router id {own};
protocol device {{}}
protocol bfd {{}}
filter vips {{
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  if net ~ [ 198.51.100.0/24{{32,32}} ] then accept;
  reject;
}}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on limit 64; }}
"""
PEER = """\
protocol bgp to_{name} {{
  local {own} as {asn}; neighbor {address} as {peer_asn};
  direct; passive; hold time {hold_time_s}; error wait time 1,5; {more}
  ipv4 {{ import filter vips; export none; gateway direct; }};
}}
"""


def config(own: str, asn: int, peers: dict[str, str], peer_asn: int, hold_time_s: int, bfd: str = "") -> str:
    """bird.conf; `peers` by name; `bfd`: the one that has it."""
    lines = [HEAD.format(own=own)]
    for name, address in peers.items():
        rest = {"asn": asn, "peer_asn": peer_asn, "hold_time_s": hold_time_s}
        more = "bfd { interval 200 ms; multiplier 3; };" if name == bfd else ""
        lines.append(PEER.format(name=name, own=own, address=address, more=more, **rest))
    return "".join(lines)


def command() -> list[str]:
    return ["bird", "-f", "-c", str(CONF), "-s", str(CONTROL)]


class Table:
    """The IPv4 host routes of a router as they come and go. A context manager, with a thread that listens."""

    def __init__(self, node: Node) -> None:
        self._routes = Routes(node)
        self._socket = node.call(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        self._socket.bind((0, RTMGRP_IPV4_ROUTE))
        self._socket.setblocking(False)
        self._changed = threading.Condition()
        self._history: list[tuple[float, dict[str, frozenset[str]]]] = [(time.monotonic(), self._routes.gateways(4))]
        self._end = False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def wait(self, vip: str, hop: str, used: bool, since: float, deadline_s: float) -> float:
        """Waits until the VIP goes by that hop, or does not. Returns after how many seconds since `since` it came so
        last; what was so already at that moment and has stayed so counts 0."""

        def so() -> bool:
            return (hop in self._history[-1][1].get(vip, ())) is used

        with self._changed:
            if not self._changed.wait_for(so, deadline_s):
                raise LabError(f"waited {deadline_s:g} s in vain for {vip} {'by' if used else 'without'} {hop}")
            at = self._history[-1][0]
            for moment, table in reversed(self._history):
                if (hop in table.get(vip, ())) is not used:
                    break
                at = moment
            return max(0.0, at - since)

    def missing_s(self, vip: str, hop: str, since: float) -> float:
        """For how long, since then, the VIP did not go by that hop."""
        total, before, away = 0.0, since, False
        with self._changed:
            history = [*self._history, (time.monotonic(), {})]
        for moment, table in history:
            if moment > since:
                total += moment - before if away else 0.0
                before = moment
            away = hop not in table.get(vip, ())
        return total

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end = True
        self._thread.join()
        self._socket.close()
        self._routes.close()

    def _follow(self) -> None:
        while not self._end:
            if not select.select([self._socket], [], [], 0.2)[0]:
                continue
            at = time.monotonic()
            self._drain()
            found = self._routes.gateways(4)
            with self._changed:
                self._history.append((at, found))
                self._changed.notify_all()

    def _drain(self) -> None:
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more than it holds; the table is read anyway
                continue
