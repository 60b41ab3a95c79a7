"""A narrow way behind the L4 nodes, with GUE: user-mode-linux cannot hear errors about it. The rest: tests/kernel."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from narrow import build

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("version", [4, 6])
def test_a_narrow_way_from_the_l4_nodes_to_the_real_servers(tmp_path: Path, version: int) -> None:
    with ExitStack() as stack:
        site = build(stack, tmp_path, rear=True, tunnel="gue")
        site.mtu(("inner", "rear"), ("s1", "eth0"), ("s2", "eth0"))
        for transfer in (site.upload, site.download):
            site.forget()
            assert transfer(version)
