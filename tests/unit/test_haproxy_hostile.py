"""Whatever stands in a string of the cluster file, it adds no directive to haproxy.cfg, and no word to one.

Raw lines are the one exception, and those stay in their section. The file is read as `lbnode check` reads it; what that
takes is rendered, and the real HAProxy must accept it without a warning (`-dW`), with the lines and words as before.
"""

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servers import Authority

from lbnode import templates
from lbnode.config.load import parse
from lbnode.errors import ConfigError
from lbnode.haproxy import render, tables
from lbnode.paths import Paths

SHIPPED = templates.load()
CLUSTER: dict[str, Any] = {
    "bgp": {"local_asn": "65001", "peers": {"r": {"address": "192.0.2.129", "asn": "65000"}}},
    "nodes": {
        "l4-1": {"role": "l4", "ipv4": "192.0.2.141"},
        "l7-1": {"role": "l7", "ipv4": "192.0.2.148"},
        "s1": {"role": "backend", "ipv4": "192.0.2.181", "weight": "50"},
        "s2": {"role": "backend", "ipv4": "192.0.2.182"},
    },
    "services": {
        "www": {
            "vips": ["198.51.100.1"],
            "ports": ["80", "443"],
            "pool": "web",
            "balance": "header",
            "balance_header": "X-Tenant",
            "sticky_cookie": "SRV",
            "tls": {"certificates": ["/etc/lb/tls/www.pem"], "client_ca": "/etc/lb/tls/ca.pem", "hsts_s": "60"},
            "routes": {"api": {"hosts": ["*.example.com"], "paths": ["/api"], "pool": "api"}},
            "clients": {"allow": ["203.0.113.0/24"], "deny": ["203.0.113.9/32"], "requests": "10"},
            "accept_proxy": ["192.0.2.0/24"],
            "timeouts": {"server_s": "30"},
            "pages": ["/etc/lb/pages/503.html"],
            "maintenance_page": "/etc/lb/pages/soon.html",
            "raw": {"frontend": ["option http-keep-alive"], "frontend_first": ["option http-keep-alive"]},
        },
        "sni": {
            "vips": ["198.51.100.2"],
            "pool": "web",
            "mode": "tcp",
            "routes": {"db": {"hosts": ["db.example.com"], "pool": "api"}},
        },
    },
    "pools": {
        "web": {
            "nodes": ["s1", "s2"],
            "port": "8080",
            "backup": ["s2"],
            "check": {"path": "/health", "host": "www.example.com", "status": ["200"], "method": "GET"},
            "tls": {"enabled": "true", "ca": "/etc/lb/tls/ca.pem", "host": "app.example.com"},
        },
        "api": {"port": "8081"},
    },
    "health": {"path": "/healthcheck"},
    "haproxy": {"raw": {"globals": ["tune.bufsize 32768"], "defaults": ["option tcp-smart-accept"]}},
}
HOSTILE = (
    "\n    bind :1",
    "\r",
    " ",
    "\t",
    "#",
    '"',
    "'",
    "\\",
    "${HOME}",
    "$(id)",
    "}",
    "{",
    ",",
    "(",
    ")",
    "\0",
    "%[",
    ";",
)
NUMBER = re.compile(r"\s*[-+]?[\d._]+\s*[a-z]*\s*")
Step = str | int


def leaves(data: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Every string of the file, be it a key that the operator chooses or a value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from leaves(value, (*path, key))
    if isinstance(data, str):
        yield path
    if isinstance(data, dict) and path[-1:] in (("nodes",), ("services",), ("pools",), ("routes",)):
        yield from ((*path, key, "a key") for key in data)


def changed(path: tuple[Step, ...], text: str) -> str:
    """The file with one string replaced, as JSON, which is YAML too."""
    data = json.loads(json.dumps(CLUSTER))
    *above, last = path[:-1] if path[-1] == "a key" else path
    place = data
    for step in above:
        place = place[step]
    if path[-1] == "a key":
        data = json.loads(json.dumps(data).replace(json.dumps(last), json.dumps(text)))
    else:
        place[last] = text
    return json.dumps(data)


class Parser:
    """The real one, in a folder where all files are that the configuration speaks of."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder, folder)
        self.paths.haproxy_state_file.parent.mkdir()
        self.paths.haproxy_state_file.write_text("1\n")
        self.pem = Authority(folder / "made").certificate("www.example.com").read_text()

    def directives(self, text: str) -> list[str]:
        """First word and number of words of each line that HAProxy reads and accepts. Raises ConfigError."""
        cluster = parse(text.replace("/etc/lb/", f"{self.paths.etc}/"))
        for name in re.findall(rf"{self.paths.etc}/[^\",]*", json.dumps(json.loads(cluster.model_dump_json()))):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(self.pem)
        for table in tables.tables(cluster, self.paths):
            Path(table.path).parent.mkdir(parents=True, exist_ok=True)
            Path(table.path).write_text(table.content)
            assert len(table.content.splitlines()) == 1 + len(table.entries)
        config = self.paths.etc / "haproxy.cfg"
        node = next(iter(cluster.with_role("l7")))  # its name may be what was changed
        written = render.config(SHIPPED, cluster, node, self.paths, (2, 6)).text
        config.write_text(written)
        argv = ["haproxy", "-c", "-dW", "-f", str(config)]
        environment = {**os.environ, "HOME": "x bind :1"}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        # HAProxy quotes as a POSIX shell does (configuration manual, 2.2).
        lines = [shlex.split(line, comments=True) for line in written.splitlines()]
        return [f"{words[0]} {len(words)}" for words in lines if words]


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        yield Parser(Path(folder))


@pytest.fixture(scope="module")
def honest(parser: Parser) -> list[str]:
    found = parser.directives(json.dumps(CLUSTER))
    assert found.count("backend 2") >= 4
    return found


def refused_or_harmless(parser: Parser, honest: list[str], path: tuple[Step, ...], text: str) -> bool:
    """Whether `lbnode check` refuses it; if not, HAProxy understands the same directives as before. A number may
    leave some out, as 0 seconds do where they mean "not at all"."""
    try:
        found = parser.directives(changed(path, text))
    except ConfigError:
        return True
    assert not Counter(found) - Counter(honest), (path, text)
    assert found == honest or NUMBER.fullmatch(text), (path, text)
    return False


# The node whose file is rendered is asked for by its name.
LEAVES = sorted((path for path in leaves(CLUSTER) if path != ("nodes", "l7-1", "a key")), key=str)


@pytest.mark.parametrize(
    "path", [path for path in LEAVES if "raw" not in path], ids=lambda path: ".".join(map(str, path))
)
def test_what_could_end_a_word_or_a_line(parser: Parser, honest: list[str], path: tuple[Step, ...]) -> None:
    value: Any = CLUSTER
    for step in path[:-1]:
        value = value[step]
    old = str(path[-2]) if path[-1] == "a key" else str(value[path[-1]])
    taken = [text for text in HOSTILE if not refused_or_harmless(parser, honest, path, old + text)]
    assert not taken or "path" in str(path), path
    assert set(taken) <= {"(", ")", ",", ";", "$(id)"}, "nothing of these means anything there"


@settings(max_examples=60)
@given(st.sampled_from([path for path in LEAVES if "raw" not in path]), st.text(max_size=30))
@example(("services", "www", "tls", "certificates", 0), "/etc/lb/tls/a b.pem")
@example(("pools", "web", "check", "path"), "/x$(id)&;,*!%20@x=?y:z+-.~")
@example(("health", "path"), '/"${HOME}"')
def test_any_text(parser: Parser, honest: list[str], path: tuple[Step, ...], text: str) -> None:
    refused_or_harmless(parser, honest, path, text)


@pytest.mark.parametrize(
    "line",
    ["option x\n    bind :1", "backend x", "frontend x", 'back"end" x', "back\\end x", "\\x62ackend x", "listen x", " ",
     "", "# x", ".if 1", "'backend' x", "defaults", "program x", "peers x", "resolvers x", "global", "\0", "é"],
)  # fmt: skip
def test_a_raw_line_stays_in_its_section(line: str) -> None:
    with pytest.raises(ConfigError, match=r"(is not a line|begins a section|does not begin with a keyword)"):
        parse(changed(("services", "www", "raw", "frontend", 0), line))
