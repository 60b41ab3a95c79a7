"""cluster.yaml -> haproxy.cfg, for the first L7 node of the file; the real HAProxy must accept each of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lbnode import templates
from lbnode.config.model import Cluster
from lbnode.haproxy import program, render
from lbnode.paths import Paths

CASES = sorted(path.parent for path in Path(__file__).parent.glob("haproxy-*/cluster.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_as_it_was_and_accepted_by_haproxy(case: Path, golden: Callable[[Path, str], None]) -> None:
    cluster = Cluster.model_validate(yaml.safe_load((case / "cluster.yaml").read_text()))
    node = next(iter(cluster.with_role("l7")))
    golden(case / "haproxy.cfg", render.config(templates.load(), cluster, node, Paths(), (2, 6)))
    assert program.check(case / "haproxy.cfg") == ""
