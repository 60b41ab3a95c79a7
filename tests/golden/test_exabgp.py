"""cluster.yaml -> exabgp.conf, for the first L4 node of the file; the real ExaBGP must accept each of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lbnode import templates
from lbnode.bgp import exabgp
from lbnode.config.model import Cluster
from lbnode.paths import Paths

CASES = sorted(path.parent for path in Path(__file__).parent.glob("exabgp-*/cluster.yaml"))
RELAY = ("/usr/bin/python3", "-IS", "/opt/lbnode/relay.py")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_as_it_was_and_accepted_by_exabgp(
    case: Path, golden: Callable[[Path, str], None], tmp_path: Path
) -> None:
    cluster = Cluster.model_validate(yaml.safe_load((case / "cluster.yaml").read_text()))
    node = next(iter(cluster.with_role("l4")))
    golden(case / "exabgp.conf", exabgp.config(templates.load(), cluster, node, Paths(), RELAY))
    # ExaBGP also looks whether the relay can be started: with this interpreter it can.
    here = tmp_path / "exabgp.conf"
    here.write_text(exabgp.config(templates.load(), cluster, node, Paths()))
    assert exabgp.check(here) == ""
