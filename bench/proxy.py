"""HAProxy on loopback for the measurements of tier 3: lbnode's, by its own driver, or a plain one with the same file.

Web servers are nginx, on addresses 127.1.0.N; ports are free ones of the machine.
"""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lbnode import reconcile, templates
from lbnode.config.model import Cluster
from lbnode.drivers import Driver
from lbnode.files import FileDriver
from lbnode.haproxy import program, render
from lbnode.haproxy import rows as proxy_rows
from lbnode.haproxy.driver import HaproxyDriver
from lbnode.haproxy.runtime import Runtime
from lbnode.paths import Paths
from lbnode.plan import Plan
from lbnode.resources import File, ServerState
from lbnode.roles.inputs import Desired, ProxyFacts
from lbnode.templates import Templates

Weights = Mapping[int, int]
"""Servers by number, each with its weight."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(condition: Callable[[], object], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"cannot measure: not ready after {deadline_s:g} s")
        time.sleep(0.001)


def listens(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@dataclass
class Site:
    """One L7 node in a folder. `template` changes the shipped one."""

    folder: Path
    per_pool: int = 0
    template: Callable[[str], str] = str
    web: int = field(default_factory=free_port)
    vip: int = field(default_factory=free_port)
    health: int = field(default_factory=free_port)
    agent: int = field(default_factory=free_port)
    stats: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.paths = Paths(self.folder / "etc", self.folder / "run")
        program.prepare(self.paths)
        self.paths.haproxy_tables.mkdir(parents=True)
        self.driver = HaproxyDriver(self.paths, wait_s=20)
        self.runtime = Runtime(self.paths.haproxy_socket)
        self.drivers: list[Driver] = [FileDriver({"haproxy": program.check}), self.driver]
        self._decided: tuple[Cluster, ProxyFacts, Desired] | None = None
        self._left = Plan()

    def cluster(self, servers: Weights, client_s: float = 60, check: bool = True) -> Cluster:
        """`per_pool` servers in each pool, each pool with a service; all in one pool when it is 0."""
        names = {number: f"s{number}" for number in servers}
        groups = [list(servers)]
        if self.per_pool:
            full = max(1, len(servers) // self.per_pool)  # what is left over belongs to the last one
            groups = [list(servers)[at * self.per_pool : (at + 1) * self.per_pool] for at in range(full)]
            groups[-1] += list(servers)[full * self.per_pool :]
        interval = 1.0 if check else 3600.0
        pools = {
            f"p{place}": {
                "nodes": [names[number] for number in group],
                "port": self.web,
                "agent_check": False,
                "check": {"interval_s": interval, "rise": 1, "fall": 3},
            }
            for place, group in enumerate(groups)
        }
        services = {
            f"w{place}": {
                "vips": [f"127.2.{place // 250}.{place % 250 + 1}"],
                "ports": [self.vip],
                "pool": f"p{place}",
                "timeouts": {"client_s": client_s},
            }
            for place in range(len(groups))
        }
        backends = {
            names[number]: {"role": "backend", "ipv4": address(number), "weight": weight}
            for number, weight in servers.items()
        }
        return Cluster.model_validate(
            {
                "bgp": {"local_asn": 65000, "peers": {"r1": {"address": "192.0.2.1", "asn": 65001}}},
                "nodes": {"l7": {"role": "l7", "ipv4": "127.0.0.1"}, **backends},
                "services": services,
                "pools": pools,
                "health": {"port": self.health},
                "agent_check": {"port": self.agent},
                "haproxy": {"metrics_port": 0},
            }
        )

    def templates(self) -> Templates:
        shipped = templates.load()
        source = self.template(shipped.sources[render.TEMPLATE].replace(":8404", f":{self.stats}"))
        if os.geteuid() != 0:
            source = source.replace("    user haproxy\n    group haproxy\n", "")
        return replace(shipped, sources={render.TEMPLATE: source})

    def desired(self, cluster: Cluster) -> Desired:
        """Worked out anew when something has changed, as the agent does it (`lbnode.decisions.Decisions`)."""
        facts = program.facts(cluster, self.paths)
        if self._decided and self._decided[0] is cluster and self._decided[1] == facts:
            return self._decided[2]
        rows = proxy_rows.rows(self.templates(), cluster, "l7", self.paths, program.version(), facts.certificates)
        enabler = ServerState("enabler", "enabler", up=True)
        desired = Desired((*rows, enabler), proxy_rows.reasons(rows, facts.loaded))
        self._decided = cluster, facts, desired
        return desired

    def make(self, cluster: Cluster) -> list[str]:
        """One pass of lbnode's; the ways that changes in HAProxy took."""
        done = reconcile.run(self.desired(cluster), self.drivers, last=self._left)
        done.raise_if_failed()
        self._left = done.left
        return [result.way for result in done.results if result.way]

    def text(self, cluster: Cluster) -> str:
        return render.config(self.templates(), cluster, "l7", self.paths, program.version()).text

    def write(self, cluster: Cluster) -> None:
        """The files alone."""
        files = tuple(row for row in self.desired(cluster).rows if isinstance(row, File))
        reconcile.run(Desired(files), self.drivers[:1]).raise_if_failed()

    @contextmanager
    def running(self, cluster: Cluster) -> Iterator[int]:
        """HAProxy as its unit starts it, with lbnode's configuration; its master's number."""
        self.write(cluster)
        process = subprocess.Popen(program.command(self.paths), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.make(cluster)
            yield process.pid
        finally:
            process.terminate()
            process.wait(20)


def address(number: int) -> str:
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen {port}; location / {{ return 200 "hello\\n"; }} }}
}}
"""


@contextmanager
def web_server(port: int) -> Iterator[None]:
    """One nginx that answers on every loopback address."""
    with tempfile.TemporaryDirectory() as name:
        config = Path(name, "nginx.conf")
        config.write_text(NGINX.format(folder=name, port=port))
        process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            wait(lambda: listens(port))
            yield
        finally:
            process.terminate()
            process.wait(20)
