"""cluster.yaml -> config and zone, for the first DNS server of the file; the real gdnsd must accept each pair."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lbnode import gdnsd, templates
from lbnode.config.load import load
from lbnode.paths import Paths

CASES = sorted(path.parent for path in Path(__file__).parent.glob("gdnsd-*/cluster.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_as_it_was_and_accepted_by_gdnsd(
    case: Path, golden: Callable[[Path, str], None], tmp_path: Path
) -> None:
    cluster = load(case / "cluster.yaml")
    assert cluster.dns is not None
    server = next(iter(cluster.dns.servers))
    config, zone = gdnsd.config(templates.load(), cluster, server, Paths()), gdnsd.zone(templates.load(), cluster)
    golden(case / "config", config)
    golden(case / "zone", zone)
    (tmp_path / "zones").mkdir()
    (tmp_path / "config").write_text(config)
    (tmp_path / "zones" / cluster.dns.zone).write_text(zone)
    # -S: what is only doubtful in a zone counts as wrong.
    command = ["/usr/sbin/gdnsd", "-S", "-c", str(tmp_path), "checkconf"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Zone {cluster.dns.zone}. with serial 1 loaded" in done.stderr
