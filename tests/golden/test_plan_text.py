"""before.yaml, cluster.yaml -> plan.txt: what an L4 node says when the cluster file changes from one to the other.

The node stands as the first file wants it; rows at weight 0 would not say what they hold their slots with.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lbnode import templates
from lbnode.config.model import Cluster
from lbnode.plan import diff
from lbnode.resources import Row
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs

CASES = sorted(path.parent for path in Path(__file__).parent.glob("plan-*/cluster.yaml"))


def rows(path: Path) -> tuple[Row, ...]:
    cluster = Cluster.model_validate(yaml.safe_load(path.read_text()))
    return desired("l4", Inputs(cluster, next(iter(cluster.with_role("l4"))), templates=templates.load())).rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_from_one_file_to_the_other(case: Path, golden: Callable[[Path, str], None]) -> None:
    golden(case / "plan.txt", f"{diff(rows(case / 'before.yaml'), rows(case / 'cluster.yaml'))}\n")
