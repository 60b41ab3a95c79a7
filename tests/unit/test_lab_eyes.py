"""What scenarios make of a router's table and of what BIRD says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.lab.scenarios.eyes import Change, gaps
from lbnode.lab.scenarios.rib import Route, routes

BIRD = """\
BIRD 2.0.12 ready.
Table master4:
198.51.100.1/32      unicast [l4_1_v4 10:05:41.1] * (100) [AS64501i]
\tvia 192.0.2.141 on infra
\tType: BGP univ
\tBGP.origin: IGP
\tBGP.as_path: 64501
\tBGP.next_hop: 192.0.2.141
\tBGP.community: (65535,0) (65001,7)
                     unicast [l4_2_v4 10:05:41.1] (100) [AS64501i]
\tvia 192.0.2.142 on infra
\tBGP.next_hop: 192.0.2.142
198.51.100.0/24      unreachable [discard4 10:05:40.0] * (200)
\tType: static univ
"""


def test_routes_of_bird():
    assert routes(BIRD.splitlines()) == [
        Route("198.51.100.1/32", "l4_1_v4", ("65535:0", "65001:7")),
        Route("198.51.100.1/32", "l4_2_v4"),
    ]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ([0], "as before"),
        ([0, 4, 0], "4 of 8 ways gone after 1.00 s, for 1.0 s"),
        ([0, 2, 8, 3, 0], "all ways gone after 1.00 s, for 3.0 s"),
        ([0, 1, 0, 1, 0, 0], "1 of 8 ways gone after 1.00 s, for 2.0 s, 2 times"),
        ([0, 8], "all ways gone after 1.00 s, for 9.0 s, and not back"),
    ],
)
def test_gaps_in_words(missing, words):
    changes = [Change(at, count) for at, count in enumerate(missing)]
    assert str(gaps(changes, 0, 10, 8)) == words


@given(st.lists(st.integers(0, 5), max_size=20))
def test_gaps_add_up(missing):
    changes = [Change(at, count) for at, count in enumerate([0, *missing])]
    found = gaps(changes, 0, len(changes), 5)
    assert found.all_s == sum(count > 0 for count in missing)
    assert (found.first_s is None) == (found.all_s == 0) == (found.times == 0)
    assert found.whole == (not missing or missing[-1] == 0)
