"""A file that HAProxy rejects is told by the lines that people wrote: of the template and of the cluster file."""

from pathlib import Path

import pytest

from lbnode import templates
from lbnode.config import positions
from lbnode.config.load import parse
from lbnode.haproxy import origin, render
from lbnode.node import Identity, drivers
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import File

TEXT = """\
bgp: {local_asn: 65001, peers: {r4: {address: 192.0.2.129, asn: 65000}}}
nodes:
  l4-1: {role: l4, ipv4: 192.0.2.141}
  l7-1: {role: l7, ipv4: 192.0.2.148}
  s1: {role: backend, ipv4: 192.0.2.181}
services:
  www:
    vips: [198.51.100.200]
    pool: web
    timeouts: {client_s: 61}
    raw:
      frontend:
        - http-request set-header X-Fine yes
        - http-request nonsense
    pages: [/nowhere/503.html]
    routes: {api: {paths: [/api], pool: api}}
pools:
  web: {check: {path: /health}}
  api: {port: 8080}
"""
SHIPPED = templates.load()


def rendered(sources: templates.Templates = SHIPPED) -> str:
    return render.config(sources, parse(TEXT), "l7-1", Paths(), (2, 6)).text


@pytest.mark.parametrize(
    ("line", "cluster", "template"),
    [
        ("    http-request nonsense", "14:11", "{{ line }}"),
        ("    http-error status 503 content-type text/html file /nowhere/503.html", "15:13", "http-error status"),
        ("    timeout client 61s", "7:3", "timeout client {{"),
        ("frontend www:clients", "7:3", "frontend {{"),
        ("backend www:servers:api", "19:3", "backend {{"),
        ("    http-check send meth GET uri /health", "18:23", "http-check send"),
        ("    server s1 192.0.2.181:8080 id 171127 weight 100", "5:3", "server {{ server.name"),
    ],
)
def test_each_line_has_a_place_in_both(line: str, cluster: str, template: str) -> None:
    lines = rendered().splitlines()
    number = next(n for n, text in enumerate(lines, 1) if text.split(" id ")[0] == line.split(" id ")[0])
    document = positions.read(TEXT)
    place = origin.cluster_place(rendered(), number, document)
    found = origin.template_lines(SHIPPED, rendered)
    assert len(found) == len(lines)
    assert template in SHIPPED.sources[render.TEMPLATE].splitlines()[(found[number - 1] or 0) - 1]
    assert f"{place.line}:{place.column}" == cluster


def test_a_rejected_file_says_where_it_is_from(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "run")
    paths.cluster_file.write_text(TEXT.replace("    pages: [/nowhere/503.html]\n", "    # none\n"))
    identity = Identity("l7-1", "l7", paths)
    cluster = parse(paths.cluster_file.read_text())
    content = render.config(SHIPPED, cluster, "l7-1", paths, (2, 6)).text
    paths.haproxy_config.parent.mkdir()
    for name in ("maintenance.map", "metrics.acl", "www:routes.map"):
        (paths.haproxy_tables / name).parent.mkdir(exist_ok=True)
        (paths.haproxy_tables / name).write_text("")
    file = File(str(paths.haproxy_config), content, checker="haproxy")
    (driver,) = (one for one in drivers(identity) if File in one.kinds)
    error = driver.apply([Change(None, file)])[0].error
    where = SHIPPED.origin[render.TEMPLATE]
    number = SHIPPED.sources[render.TEMPLATE].split("own.raw.frontend %}")[0].count("\n") + 2
    assert "nonsense" in error
    assert f"comes from {where}:{number} and {paths.cluster_file}:14:11" in error
    assert not paths.haproxy_config.exists()
