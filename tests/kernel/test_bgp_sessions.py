"""Sessions of every kind, and sessions that do not come up: ExaBGP 5.0, and Debian's 4.2, beside BIRD."""

import json
import os
import random
import signal
from pathlib import Path

import pytest
from bgp_site import LATER4, NODE4, ROUTE4, ROUTE6, ROUTER4, ROUTER6, VIP4, VIP6, Site, served, site

from lbnode.bgp.driver import peers
from lbnode.bgp.reasons import NO_CONNECTION, SECURED
from lbnode.lab.wait import wait_until
from lbnode.resources import Announcement

__all__ = ["served", "site"]

pytestmark = pytest.mark.kernel

PROGRAMS = {"5.0": "", "4.2": "/usr/sbin/exabgp"}
SECRET = "pass#;{[(,word"  # noqa: S105
BOTH4 = "198.51.100.2/32"
BIRD = """
router id 192.0.2.1;
protocol device {}
protocol direct { ipv4; }
template bgp node { strict bind; hold time 9; connect delay time 1; error wait time 1,2; }
"""
SECURED_OUTSIDE = f"""
protocol bgp one4 from node {{
  local 192.0.2.1 as 65000; neighbor 192.0.2.11 as 65010; password "{SECRET}"; ttl security on;
  ipv4 {{ import all; export none; }};
}}
"""
INSIDE = """
protocol bgp two4 from node {
  local 192.0.2.2 as 65010; neighbor 192.0.2.11 as 65010; ipv4 { import all; export none; add paths rx; };
}
"""
ONE6 = """
protocol bgp one6 from node {
  local 2001:db8:0:2::1 as 65000; neighbor 2001:db8:0:2::11 as 65010; ipv6 { import all; export none; };
}
"""


def use(site: Site, version: str, first: str, second: str) -> None:
    """Other routers than the usual ones, and this version of ExaBGP. One BIRD has one session with a neighbor, whatever
    its own address."""
    site.program = PROGRAMS[version]
    for name, protocols in (("bird", first), ("later", second)):
        site.stop(name)
        site.start_bird(name, BIRD + protocols)


def announced(site: Site) -> dict[tuple[str, str], dict[str, str]]:
    """What came by BGP, without what BIRD fills in itself."""
    found = site.attributes()
    return {key: value for key, value in found.items() if key[1] != "direct1"}


@pytest.mark.parametrize("version", PROGRAMS)
def test_attributes_and_sessions_of_every_kind(site: Site, version: str) -> None:
    use(site, version, SECURED_OUTSIDE, INSIDE)
    running = site.configure_peers(
        {
            ROUTER4: {"asn": 65000, "password_file": "/etc/lb/r1", "ttl_security": 1},
            LATER4: {"asn": 65010, "passive": True, "add_path": True, "hold_time_s": 30},
        },
        {ROUTER4: SECRET},
    )
    outside = Announcement(
        VIP4,
        ROUTER4,
        "192.0.2.12",
        med=7,
        communities=("65010:1", "65535:65281"),
        large_communities=("65010:1:2",),
        prepend=2,
    )
    inside = Announcement(VIP4, LATER4, NODE4, med=0, local_preference=50, large_communities=("65010:4294967295:0",))
    site.start_exabgp()
    assert site.want(running, outside, inside, Announcement(BOTH4, LATER4, NODE4)) == []
    site.wait_up(ROUTER4, LATER4)
    site.wait_routes(("192.0.2.0/24", "direct1"), (VIP4, "one4"), (VIP4, "two4"), (BOTH4, "two4"))
    assert announced(site) == {
        (VIP4, "one4"): {
            "origin": "IGP",
            "as_path": "65010 65010 65010",
            "next_hop": "192.0.2.12",
            "med": "7",
            "local_pref": "100",
            "community": "(65010,1) (65535,65281)",
            "large_community": "(65010, 1, 2)",
        },
        (VIP4, "two4"): {
            "origin": "IGP",
            "next_hop": NODE4,
            "med": "0",
            "local_pref": "50",
            "large_community": "(65010, 4294967295, 0)",
        },
        (BOTH4, "two4"): {"origin": "IGP", "next_hop": NODE4, "local_pref": "100"},
    }
    said = (
        (site.folder / "exabgp.log").read_text() + site.paths.bgp_told.read_text() + site.paths.bgp_wanted.read_text()
    )
    assert SECRET not in said


@pytest.mark.parametrize("version", PROGRAMS)
def test_peers_that_refuse_say_why_and_harm_no_other_session(site: Site, version: str) -> None:
    wrong_as = INSIDE.replace("local 192.0.2.2 as 65010", "local 192.0.2.2 as 65077")
    use(site, version, SECURED_OUTSIDE + ONE6, wrong_as)
    running = site.configure_peers(
        {
            ROUTER4: {"asn": 65000, "password_file": "/etc/lb/r1", "ttl_security": 1},
            LATER4: {"asn": 65000},
            ROUTER6: {"asn": 65000},
        },
        {ROUTER4: "another"},
    )
    site.start_exabgp()
    assert site.want(running, ROUTE4, Announcement(VIP4, LATER4, NODE4), ROUTE6) == []
    site.wait_up(ROUTER6)
    since = peers(site.paths)[ROUTER6]["since"]

    def reasons() -> dict[str, str]:
        return {address: peer["reason"] for address, peer in peers(site.paths).items() if peer["state"] != "up"}

    def known() -> bool:
        return "AS number" in reasons()[LATER4] and reasons()[ROUTER4] == SECURED

    wait_until(known, 20, "the reasons")
    site.stop("later")
    wait_until(lambda: reasons()[LATER4] == NO_CONNECTION, 20, "a refused connection to be told")
    assert set(announced(site)) == {(VIP6, "one6")}
    assert peers(site.paths)[ROUTER6]["since"] == since


@pytest.mark.parametrize("version", PROGRAMS)
def test_a_graceful_restart_loses_no_route_and_keeps_none_too_long(site: Site, version: str) -> None:
    use(site, version, "", INSIDE.replace("65010; ipv4", "65010; graceful restart on; ipv4"))
    running = site.configure_peers({LATER4: {"asn": 65010, "graceful_restart_s": 60}})
    first, second = Announcement(VIP4, LATER4, NODE4), Announcement(BOTH4, LATER4, NODE4)
    site.start_exabgp()
    assert site.want(running, first, second) == []
    both = {(VIP4, "two4"), (BOTH4, "two4")}
    wait_until(lambda: set(announced(site)) == both, 20, "both routes")
    site.stop("exabgp", signal.SIGKILL)
    wait_until(lambda: peers(site.paths) == {}, 5, "the relay to end with ExaBGP")
    site.driver.wait_s = 0.1
    site.want(running, first)
    assert set(announced(site)) == both
    site.start_exabgp()
    seen: list[set[tuple[str, str]]] = []

    def looked() -> bool:
        seen.append(set(announced(site)))
        return seen[-1] == {(VIP4, "two4")}

    wait_until(looked, 30, "the route that nobody wants any more to go")
    assert all((VIP4, "two4") in routes for routes in seen)


def test_a_prefix_outside_the_guard_is_refused_and_the_rest_goes_on(served: Site) -> None:
    running, stray = served.configure(ROUTER4, ROUTER6), Announcement("203.0.113.9/32", ROUTER4, NODE4)
    why = f"it is outside of what {served.paths.announceable} permits"
    assert served.want(running, ROUTE4, ROUTE6, stray) == [f"cannot announce {stray.title}: {why}"]
    assert set(served.routes()) == {(VIP4, "one4"), (VIP6, "one6")}


def test_ten_thousand_random_lines_into_the_relay_harm_no_session(served: Site) -> None:
    """They come by the pipe on which ExaBGP speaks; none of them begins or ends one of ExaBGP's own lines."""
    before, relay = peers(served.paths), served.relay_pid()
    chance = random.Random(4)  # noqa: S311
    pipe = Path(f"/proc/{relay}/fd/0")
    scraps = [
        "{",
        "}",
        '"type"',
        "state",
        ROUTER4,
        "[]",
        "null",
        "\x00",
        " ",
        "neighbor",
        json.dumps({"type": "state"}),
    ]
    lines = ["".join(chance.choices(scraps, k=chance.randrange(1, 9))) + "\n" for _ in range(10_000)]
    with pipe.open("wb", buffering=0) as out:
        for line in lines:
            out.write(line.encode())
    other = Announcement(BOTH4, ROUTER4, NODE4)
    assert served.want(served.configure(ROUTER4, ROUTER6), ROUTE4, ROUTE6, other) == []
    served.wait_routes((VIP4, "one4"), (VIP6, "one6"), (BOTH4, "one4"))
    assert served.relay_pid() == relay
    assert peers(served.paths) == before
    os.kill(relay, 0)
