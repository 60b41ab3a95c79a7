"""ExaBGP with its relay beside BIRD, over a veth pair: what is written in `wanted` is what the router has."""

import os
import signal

import pytest
from bgp_site import LATER4, NODE4, NODE6, ROUTE4, ROUTE6, ROUTER, ROUTER4, ROUTER6, VIP4, VIP6, Site, served, site

from lbnode.bgp import exabgp
from lbnode.bgp.driver import START_IT, peers
from lbnode.bgp.told import read_told
from lbnode.lab.wait import wait_until
from lbnode.plan import diff
from lbnode.resources import Announcement, Running

__all__ = ["served", "site"]

pytestmark = pytest.mark.kernel


def test_what_is_wanted_reaches_the_router_and_leaves_it(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    graceful = Announcement(VIP4, ROUTER4, NODE4, med=100, communities=("65010:7", "65535:0"))
    assert served.want(running, graceful, ROUTE6) == []
    wait_until(
        lambda: served.routes()[(VIP4, "one4")] == f"{NODE4} 100 (65010,7) (65535,0)", 5, "new attributes on the route"
    )
    assert diff(served.driver.observe((running, graceful, ROUTE6)).rows, (running, graceful, ROUTE6)).changes == ()
    assert served.want(running, ROUTE6) == []
    served.wait_routes((VIP6, "one6"))
    assert served.want(running) == []
    served.wait_routes()


def test_many_prefixes_that_are_told_together_reach_the_router_each_with_its_attributes(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    many = [Announcement(f"198.51.100.{last}/32", ROUTER4, NODE4, med=last // 20) for last in range(50)]
    many += [Announcement(f"2001:db8:100::{last:x}/128", ROUTER6, NODE6, med=7) for last in range(1, 30)]
    assert served.want(running, *many) == []
    protocols = {ROUTER4: "one4", ROUTER6: "one6"}
    expected = {(row.prefix, protocols[row.peer]): f"{row.next_hop} {row.med}" for row in many}
    wait_until(lambda: served.routes() == expected, 5, "all of them")
    assert served.want(running, *many[1::3]) == []
    served.wait_routes(*((row.prefix, protocols[row.peer]) for row in many[1::3]))


def test_exabgp_that_comes_back_announces_the_same_without_anybodys_help(served: Site) -> None:
    served.stop("exabgp", signal.SIGKILL)
    served.wait_routes()
    wait_until(lambda: peers(served.paths) == {}, 5, "the relay to end with ExaBGP")
    served.start_exabgp()
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))


def test_orders_given_while_exabgp_is_away_are_followed_when_it_starts(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    served.stop("exabgp")
    wait_until(lambda: read_told(served.paths) is None, 5, "the relay to end with ExaBGP")
    served.driver.wait_s = 0.1
    other = Announcement("198.51.100.9/32", ROUTER4, NODE4)
    errors = served.want(running, other)
    assert errors == [
        f"cannot run ExaBGP with configuration {running.config}: it is not running; {START_IT}",
        f"cannot announce 198.51.100.9/32 to {ROUTER4}: ExaBGP is not running; it will announce it when it starts",
    ]
    served.start_exabgp()
    served.wait_routes(("198.51.100.9/32", "one4"))


def test_a_router_that_comes_back_gets_its_routes_again(served: Site) -> None:
    served.stop("bird")
    wait_until(lambda: peers(served.paths)[ROUTER4]["state"] != "up", 20, "the session to be seen down")
    served.start_bird("bird", ROUTER)
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    served.wait_up(ROUTER4, ROUTER6)


def test_a_relay_that_dies_changes_nothing_and_its_successor_knows_what_is_announced(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6)
    old = served.relay_pid()
    os.kill(old, signal.SIGSTOP)  # it sees nothing of what is written now
    served.driver.wait_s = 0.1
    assert served.want(running, ROUTE4) == [f"cannot withdraw {VIP6} to {ROUTER6}: ExaBGP does not follow yet"]
    assert set(served.routes()) == {(VIP4, "one4"), (VIP6, "one6")}
    os.kill(old, signal.SIGKILL)
    served.wait_routes((VIP4, "one4"))
    served.wait_up(ROUTER4, ROUTER6)
    assert served.relay_pid() != old
    assert served.driver.observe((running, ROUTE4)).rows == (running, ROUTE4)


def test_orders_that_make_no_sense_change_nothing_and_are_complained_of(served: Site) -> None:
    served.paths.bgp_wanted.write_text("{")

    def problem() -> str:
        told = read_told(served.paths)
        return told.problem if told else ""

    wait_until(problem, 5, "the relay to complain")
    assert problem().startswith(f"cannot read {served.paths.bgp_wanted}: ")
    assert set(served.routes()) == {(VIP4, "one4"), (VIP6, "one6")}
    assert served.want(served.configure(ROUTER4, ROUTER6), ROUTE4) == []
    served.wait_routes((VIP4, "one4"))
    assert problem() == ""


def test_a_new_peer_comes_with_a_reload_that_leaves_the_other_sessions_alone(served: Site) -> None:
    since = peers(served.paths)[ROUTER4]["since"]
    later = Announcement(VIP4, LATER4, NODE4)
    running = served.configure(ROUTER4, ROUTER6, LATER4)
    assert served.want(running, ROUTE4, ROUTE6, later) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"), (VIP4, "two4"))
    served.wait_up(ROUTER4, ROUTER6, LATER4)
    assert peers(served.paths)[ROUTER4]["since"] == since
    running = served.configure(ROUTER4, ROUTER6)
    assert served.want(running, ROUTE4, ROUTE6) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))


def test_a_changed_hold_time_brings_the_routes_back_after_the_session(served: Site) -> None:
    running = served.configure(ROUTER4, ROUTER6, hold_time_s=6)
    assert served.want(running, ROUTE4, ROUTE6) == []
    served.wait_up(ROUTER4, ROUTER6)
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"))


def test_a_configuration_that_exabgp_refuses_is_an_error_and_announcing_goes_on(served: Site) -> None:
    served.configure(ROUTER4, ROUTER6, LATER4)
    text = served.paths.exabgp_config.read_text()
    served.paths.exabgp_config.write_text(text + "neighbour {\n}\n")
    assert "neighbour" in exabgp.check(served.paths.exabgp_config)
    unusable = Running("exabgp", exabgp.digest(text))
    served.driver.wait_s = 2
    errors = served.want(unusable, ROUTE4)
    assert len(errors) == 1
    assert f"ExaBGP does not take configuration {unusable.config}" in errors[0]
    served.wait_routes((VIP4, "one4"))
    served.paths.exabgp_config.write_text(text)
    served.stop("exabgp")
    served.start_exabgp()
    served.driver.wait_s = 10
    assert served.want(unusable, ROUTE4) == []
    served.wait_routes((VIP4, "one4"))


def test_a_peer_that_exabgp_does_not_have_is_a_refusal_with_its_reason(served: Site) -> None:
    running, stray = served.configure(ROUTER4, ROUTER6), Announcement(VIP4, LATER4, NODE4)
    errors = served.want(running, ROUTE4, ROUTE6, stray)
    assert errors == [f"cannot announce {VIP4} to {LATER4}: ExaBGP refused it: it has no neighbor {LATER4}"]
    assert served.want(running, ROUTE4, ROUTE6) == []


def test_a_reload_takes_while_a_peer_is_down_and_routes_wait_for_it(served: Site) -> None:
    gone = "192.0.2.99"
    running = served.configure(ROUTER4, ROUTER6, gone)
    assert served.want(running, ROUTE4, ROUTE6, Announcement(VIP4, gone, NODE4)) == []
    running = served.configure(ROUTER4, ROUTER6, gone, LATER4)
    rows = (running, ROUTE4, ROUTE6, Announcement(VIP4, gone, NODE4), Announcement(VIP4, LATER4, NODE4))
    assert served.want(*rows) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"), (VIP4, "two4"))


def test_an_exabgp_that_was_told_not_to_answer_is_told_all_the_same(site: Site) -> None:
    running = site.configure(ROUTER4, ROUTER6)
    site.start_exabgp(exabgp_api_ack="false")
    assert site.want(running, ROUTE4, ROUTE6) == []
    site.wait_routes((VIP4, "one4"), (VIP6, "one6"))
    assert site.want(running, ROUTE4) == []
    site.wait_routes((VIP4, "one4"))
    running = site.configure(ROUTER4, ROUTER6, LATER4)
    assert site.want(running, ROUTE4, Announcement(VIP4, LATER4, NODE4)) == []
    site.wait_routes((VIP4, "one4"), (VIP4, "two4"))
