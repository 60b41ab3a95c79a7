"""The shape of the code: what decides does no I/O, imports point one way, and nothing grows out of sight."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "lbnode"
PURE = [
    "resources/*.py",
    "plan.py",
    "maglev.py",
    "impact.py",
    "explain.py",
    "gdnsd.py",
    "roles/*.py",
    "health/state.py",
    "maintenance/state.py",
    "maintenance/calm.py",
    "agent/drift.py",
    "config/model/*.py",
    "config/values.py",
    "config/mistakes.py",
    "config/numbers.py",
    "config/inorder.py",
    "config/draft.py",
    "config/drafting.py",
    "config/sound.py",
    "config/bgp.py",
    "config/peering.py",
    "config/peering_advice.py",
    "bgp/guard.py",
    "bgp/reasons.py",
    "bgp/words.py",
    "config/communities.py",
    "config/frozen.py",
    "config/crosscheck.py",
    "config/services.py",
    "config/speaking.py",
    "config/balancing.py",
    "config/dns.py",
    "config/dnscheck.py",
    "config/advice.py",
    "chance/generations.py",
    "chance/layout.py",
    "chance/elf.py",
    "config/http.py",
    "config/httpchecks.py",
    "haproxy/render.py",
    "haproxy/views.py",
    "haproxy/quoting.py",
    "haproxy/tables.py",
    "haproxy/rows.py",
    "haproxy/stats.py",
    "haproxy/origin.py",
    "haproxy/configuration.py",
    "haproxy/statefile.py",
    "ipvs/ipvsadm.py",
    "net/nftables.py",
    "doctor/finding.py",
    "doctor/modules.py",
    "doctor/settings.py",
    "doctor/devices.py",
    "doctor/packets.py",
    "doctor/programs.py",
    "doctor/table.py",
    "doctor/rights.py",
    "doctor/bgp.py",
    "doctor/router.py",
    "lab/account.py",
    "lab/served.py",
]
IMPURE_MODULES = {
    "asyncio",
    "socket",
    "subprocess",
    "time",
    "random",
    "os",
    "threading",
    "pyroute2",
    "aiohttp",
    "requests",
}
IMPURE_PACKAGES = {
    "lbnode.agent",
    "lbnode.cli",
    "lbnode.lab",
    "lbnode.net",
    "lbnode.files",
    "lbnode.lock",
    "lbnode.node",
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


@pytest.mark.parametrize("path", modules(*PURE), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_decides_does_no_io_and_reads_no_clock(path):
    found = imports(path)
    assert not {name for name in found if name.split(".")[0] in IMPURE_MODULES}
    assert not {name for name in found if any(name == p or name.startswith(p + ".") for p in IMPURE_PACKAGES)}


def test_every_pattern_names_something():
    assert all(modules(pattern) for pattern in PURE)


@pytest.mark.parametrize("path", modules("**/*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_nothing_but_the_edge_and_the_lab_imports_the_command_line():
    for path in modules("**/*.py"):
        if path.relative_to(ROOT).parts[0] not in ("cli", "lab", "__main__.py"):
            assert not {name for name in imports(path) if name.startswith("lbnode.cli")}, path
