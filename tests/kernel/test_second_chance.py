"""Flows that two L4 nodes disagree about, because real servers came, drained or came back: with a second chance they go
on, without one they are reset. Real packets, real sockets, both families.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chances import FOLDER, SERIALS, Chances, added, drained, five, moved, opened, over, returned
from direct_site import Site
from echo import answers

from lbnode.roles.inputs import Chance

pytestmark = pytest.mark.kernel


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with five(tmp_path) as found:
        yield found


@pytest.fixture
def chances(site: Site) -> Chances:
    made = Chances(site)
    made.learn()
    return made


def both(site: Site) -> None:
    added(site)
    drained(site)


CHANGES: dict[str, tuple[Callable[[Site], None] | None, Callable[[Site], None]]] = {
    "added": (None, added),
    "drained": (None, drained),
    "returned": (drained, returned),
    "added, and another drained": (None, both),
}


@pytest.mark.parametrize(("before", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_no_flow_breaks(site: Site, chances: Chances, before: Callable[[Site], None] | None, change: object) -> None:
    if before is not None:
        before(site)
        chances.learn()
    flows = opened(site)
    assert chances.counted("forwarded") == 0
    change(site)  # type: ignore[operator]
    chances.learn()
    assert moved(site, flows) == {"own": 2 * len(flows)}
    assert chances.counted("forwarded") > 0
    assert chances.counted("alone") == chances.counted("two-hops") == chances.counted("stranger") == 0
    settled = chances.counted("forwarded")
    assert set(answers(opened(site))) == {"own"}
    assert chances.counted("forwarded") == settled


def test_without_one_some_are_reset(site: Site) -> None:
    """What the others show would be worth nothing if it were so anyhow."""
    flows = opened(site)
    added(site)
    over(site, ["l4-2"])
    assert answers(flows).get("reset", 0) > 0


def test_real_servers_that_hear_late_save_them_too(site: Site, chances: Chances) -> None:
    """Nobody has told them yet of the one that was added, and which now gets flows of theirs."""
    flows = opened(site)
    added(site)
    assert moved(site, flows) == {"own": 2 * len(flows)}
    assert chances.counted("forwarded") > 0


def test_two_changes_need_two_hops(site: Site, chances: Chances) -> None:
    """Flows of two generations, and a table of before both that is tried in vain first."""
    first = opened(site)
    drained(site)
    chances.learn()
    second = opened(site)
    added(site)
    returned(site)
    chances.learn()
    assert moved(site, [*first, *second]) == {"own": 2 * len([*first, *second])}
    assert chances.counted("forwarded-again") > 0


def test_removed_it_leaves_everything_to_the_kernel(site: Site, chances: Chances) -> None:
    flows = opened(site)
    for name in SERIALS:
        chances.make(name, Chance(refused="for this test"))
        assert not site.nodes[name].exists(FOLDER)
    assert answers(flows) == {"own": len(flows)}
