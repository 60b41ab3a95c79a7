"""A backend that announces its own service: no L4 or L7 node, only itself, ExaBGP and a router with BIRD."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bgp_site import LATER4, NODE4, NODE6, ROUTER4, ROUTER6, VIP4, VIP6, Site, sh, site

from lbnode.agent import control
from lbnode.lab.wait import wait_until

__all__ = ["site"]

pytestmark = pytest.mark.kernel

CLUSTER = f"""
bgp:
  local_asn: 65010
  attributes: {{communities: ["65010:1"], med: 5}}
  peers:
    r4: {{address: {ROUTER4}, asn: 65000, attributes: {{communities: ["65010:2"]}}}}
    r6: {{address: "{ROUTER6}", asn: 65000}}
    other: {{address: {LATER4}, asn: 65000, nodes: [s2]}}
nodes:
  s1: {{role: backend, ipv4: {NODE4}, ipv6: "{NODE6}", attributes: {{med: 7}}}}
  s2: {{role: backend, ipv4: 192.0.2.12, ipv6: "2001:db8:0:2::12"}}
pools:
  web: {{nodes: [s1, s2], port: 8080}}
services:
  www:
    vips: [{VIP4.partition("/")[0]}, "{VIP6.partition("/")[0]}"]
    ports: [8080]
    pool: web
    through: backend
    announce: backend
probe: {{interval_s: 0.2, timeout_s: 0.5}}
"""


class Backend:
    """The node's own programs, as systemd would run them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.options = ["--node", "s1", "--etc-dir", str(site.paths.etc), "--run-dir", str(site.paths.run)]
        site.paths.etc.mkdir()
        site.paths.cluster_file.write_text(CLUSTER)

    def start(self, name: str, *argv: str) -> None:
        self.site.start(name, ["ip", "netns", "exec", self.site.node, sys.executable, "-m", *argv], {})

    def start_web(self) -> None:
        self.start("web", "http.server", "8080", "--bind", "::", "--directory", str(self.site.folder / "empty"))

    def start_agent(self) -> None:
        self.start("agent", "lbnode", "agent", "--role", "backend", *self.options)


@pytest.fixture
def backend(site: Site) -> Iterator[Backend]:
    (site.folder / "empty").mkdir()
    backend = Backend(site)
    backend.start_agent()
    wait_until(site.paths.exabgp_config.exists, 20, "the agent to write exabgp.conf")
    site.start_exabgp()
    site.wait_up(ROUTER4, ROUTER6)
    return backend


def test_a_backend_announces_its_vips_while_its_own_check_is_good(backend: Backend) -> None:
    site = backend.site
    reason = "www is down: ECONNREFUSED"
    wait_until(lambda: reason in str(control.ask(site.paths, "status")), 10, f"the status to say {reason}")
    assert site.routes() == {}
    backend.start_web()
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    assert site.routes() == {
        (VIP4, "one4"): f"{NODE4} 7 (65010,1) (65010,2)",
        (VIP6, "one6"): f"{NODE6} 7 (65010,1)",
    }
    site.stop("web", signal.SIGKILL)
    site.wait_routes()
    backend.start_web()
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    Path(site.paths.disable).touch()
    site.wait_routes()
    Path(site.paths.disable).unlink()
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    site.stop("agent", signal.SIGKILL)
    backend.start_agent()
    wait_until(lambda: (control.ask(site.paths, "status") or {}).get("last_pass"), 20, "a pass of the new agent")
    assert set(site.routes()) == {(VIP4, "one4"), (VIP6, "one6")}


def test_apply_alone_announces(site: Site) -> None:
    (site.folder / "empty").mkdir()
    backend = Backend(site)
    backend.start_web()
    argv = ["ip", "netns", "exec", site.node, sys.executable, "-m", "lbnode", "apply", *backend.options]
    site.start("apply", argv, {})
    wait_until(site.paths.exabgp_config.exists, 20, "exabgp.conf")
    site.start_exabgp()
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    sh("ip", "netns", "exec", site.node, "ip", "addr", "show", "dev", "lb-vip")
