"""Who of a service's real servers gets new flows when checks fail, under traffic: quorum, panic, slow start.

What a health path answers need not be true of the server: each of these tells 500 while it goes on serving.
"""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from direct_site import VIP, Site, built, cluster
from echo import DEADLINE_S, answers, but, of

from lbnode.health.monitor import Monitor, Pace
from lbnode.lab.wait import wait_until
from lbnode.roles.prober import Prober

pytestmark = pytest.mark.kernel

SERVERS = ("s1", "s2", "s3")
FLOWS = 40
BOTH = frozenset(VIP.values())
NONE: frozenset[str] = frozenset()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """A site of three servers whose service has these settings, and whose health path is asked."""
    with ExitStack() as stack:

        def made(service: str) -> Site:
            text = cluster(dict.fromkeys(SERVERS, ""), service=service, check="{type: http, path: /health}")
            return stack.enter_context(built(text, text, tmp_path))

        yield made


def tells(site: Site, status: int, *servers: str) -> None:
    site.statuses.update(dict.fromkeys(servers, status))
    site.probe_and_pass()


def weights(site: Site) -> list[int]:
    """In the kernel, of both families alike, in the order of the servers."""
    four, six = (list(site.balancers[0].weights(version).values()) for version in (4, 6))
    assert four == six
    return four


def local_routes(site: Site) -> list[str]:
    lines = [site.nodes["l4-1"].run(("ip", f"-{v}", "route", "show", "table", "77")).stdout for v in (4, 6)]
    return [line.split()[1] for line in "".join(lines).splitlines()]


def test_a_withdrawn_vip_comes_back_at_the_upper_mark(make: Callable[[str], Site]) -> None:
    site = make("quorum: 2, quorum_high: 3")
    flows = site.open(4, FLOWS)
    steps = [
        (500, "s1", [0, 100, 100], BOTH),  # at the lower mark
        (500, "s2", [0, 0, 100], NONE),  # under it
        (200, "s1", [100, 0, 100], NONE),  # between the marks
        (200, "s2", [100, 100, 100], BOTH),  # at the upper one
        (500, "s3", [100, 100, 0], BOTH),  # between them again
    ]
    for status, server, expected, announced in steps:
        tells(site, status, server)
        assert (weights(site), site.announced) == (expected, announced), server
        assert answers(flows) == {"own": FLOWS}
    assert local_routes(site) == []


def test_one_that_starts_under_the_upper_mark_does_not_announce(make: Callable[[str], Site]) -> None:
    site = make("quorum: 1, quorum_high: 3")
    site.statuses["s1"] = 500
    site.balancers[0].announcer.rows.clear()
    site.probe_and_pass()
    assert site.announced == NONE
    tells(site, 200, "s1")
    assert site.announced == BOTH


def test_checks_that_all_fail_withdraw_the_service(make: Callable[[str], Site]) -> None:
    """Its flows go on: who answers, be it with 500, has not gone."""
    site = make("quorum: 1")
    flows = site.open(4, FLOWS)
    tells(site, 500, *SERVERS)
    assert (weights(site), site.announced, local_routes(site)) == ([0, 0, 0], NONE, [])
    assert answers(flows) == {"own": FLOWS}


def test_keep_serves_with_servers_whose_checks_all_fail(make: Callable[[str], Site]) -> None:
    site = make("quorum: 2, below_quorum: keep")
    flows = [*site.open(4, FLOWS), *site.open(6, FLOWS)]
    tells(site, 500, "s1")
    assert (weights(site), site.announced) == ([0, 100, 100], BOTH)
    tells(site, 500, "s2", "s3")
    assert (weights(site), site.announced, local_routes(site)) == ([100, 100, 100], BOTH, [])
    assert answers(flows) == {"own": len(flows)}
    assert {flow.server for flow in site.open(4, FLOWS)} == set(SERVERS)
    # What people say is believed in any case.
    site.words["s2"] = "drain"
    site.probe_and_pass()
    assert (weights(site), site.announced) == ([100, 0, 100], BOTH)
    assert answers(flows) == {"own": len(flows)}
    site.words.update(s1="drain", s3="drain")
    site.probe_and_pass()
    assert (weights(site), site.announced) == ([0, 0, 0], NONE)


def test_keep_does_not_end_flows_of_servers_that_say_nothing(make: Callable[[str], Site]) -> None:
    site = make("quorum: 2, below_quorum: keep")
    flows = site.open(4, FLOWS)
    site.cable("s1", up=False)
    site.cable("s2", up=False)
    site.probe_and_pass()
    assert (weights(site), site.announced, local_routes(site)) == ([100, 100, 100], BOTH, [])
    assert answers(of(flows, "s3")) == {"own": len(of(flows, "s3"))}
    for server in ("s1", "s2"):
        site.cable(server, up=True)
        site.until_up(server)
    assert site.do_pass() == []
    wait_until(lambda: answers(flows) == {"own": FLOWS}, DEADLINE_S, "every flow to go on")


def test_under_the_panic_share_checks_are_not_believed(make: Callable[[str], Site]) -> None:
    site = make("panic_percent: 50")
    flows = site.open(4, FLOWS)
    tells(site, 500, "s1")
    assert weights(site) == [0, 100, 100]
    tells(site, 500, "s2")
    assert (weights(site), site.announced, local_routes(site)) == ([100, 100, 100], BOTH, [])
    assert {flow.server for flow in site.open(4, FLOWS)} == set(SERVERS)
    tells(site, 200, "s2")
    assert weights(site) == [0, 100, 100]
    assert answers(flows) == {"own": FLOWS}


def test_the_flows_of_the_last_one_are_not_ended(make: Callable[[str], Site]) -> None:
    """Nobody is left who could take them; and when all have failed, their flows are left alone."""
    site = make("quorum: 1")
    flows = site.open(4, FLOWS)
    site.words.update(s1="down", s2="down")
    site.probe_and_pass()
    assert len(local_routes(site)) == 4
    rest = of(flows, "s3")
    assert answers(but(flows, "s3")) == {"reset": FLOWS - len(rest)}
    site.words["s3"] = "down"
    site.probe_and_pass()
    assert (weights(site), site.announced, local_routes(site)) == ([0, 0, 0], NONE, [])
    assert answers(rest) == {"own": len(rest)}


@contextmanager
def monitored(site: Site) -> Iterator[Monitor]:
    """The agent's own probing, in the L4 node."""
    begun = threading.Event()
    made: list[tuple[Monitor, Callable[[], object]]] = []

    async def keep() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        monitor = Monitor(lambda: None)
        await monitor.follow(Prober(site.cluster, "l4-1").probes(), Pace(0.1, 0.5, rise=1, fall=2))
        await monitor.settled()
        made.append((monitor, lambda: loop.call_soon_threadsafe(stop.set)))
        begun.set()
        await stop.wait()
        await monitor.close()

    thread = threading.Thread(target=lambda: site.nodes["l4-1"].call(lambda: asyncio.run(keep())))
    thread.start()
    assert begun.wait(DEADLINE_S)
    monitor, stop = made[0]
    try:
        yield monitor
    finally:
        stop()
        thread.join()


def test_one_that_comes_back_gets_its_share_by_and_by(make: Callable[[str], Site]) -> None:
    """With a scheduler that has no table. The seconds are the probe's own: from its first success on."""
    site = make("slow_start_s: 3, ipvs: {scheduler: wlc}")
    flows = site.open(4, FLOWS)
    balancer = site.balancers[0]
    seen: list[int] = []

    def weight(monitor: Monitor) -> int:
        balancer.do_pass(site.cluster, monitor.health)
        found = list(balancer.weights(4).values())
        assert found[1:] == [100, 100]
        if found[:1] != seen[-1:]:
            seen.append(found[0])
        return found[0]

    with monitored(site) as monitor:
        assert weight(monitor) == 100  # nobody starts slowly because the agent does
        site.statuses["s1"] = 500
        wait_until(lambda: weight(monitor) == 0, DEADLINE_S, "s1 to be down")
        site.statuses["s1"] = 200
        wait_until(lambda: weight(monitor) == 100, DEADLINE_S, "s1 to have its full share")
    rising = seen[2:]
    assert seen[:2] == [100, 0]
    assert rising == sorted(set(rising))
    assert {weight % 10 for weight in rising} == {0}
    assert rising[0] <= 40
    assert len(rising) >= 4, rising
    assert answers(flows) == {"own": FLOWS}


def answer(server: socket.socket, error: int, stop: threading.Event) -> None:
    """Every DNS question, with this error number, until told to stop."""
    server.settimeout(0.1)
    while not stop.is_set():
        with suppress(OSError):
            data, client = server.recvfrom(512)
            server.sendto(data[:2] + bytes([0x84, error]) + data[4:], client)
    server.close()


@contextmanager
def name_servers(site: Site, errors: dict[str, int]) -> Iterator[None]:
    """On the VIPs of some servers."""
    stop, threads = threading.Event(), []
    for name, error in errors.items():
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            made = site.nodes[name].call(partial(socket.socket, family, socket.SOCK_DGRAM))
            made.bind((VIP[version], 53))
            threads.append(threading.Thread(target=answer, args=(made, error, stop)))
            threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_program_of_the_documentation_asks_name_servers(make: Callable[[str], Site], tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "services.md"
    (text,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    program = tmp_path / "ask-dns"
    program.write_text(text)
    program.chmod(0o755)
    site = make(f"probe: {{type: script, port: 53, script: [{program}]}}")
    site.patience_s = DEADLINE_S
    site.probe_and_pass()
    assert (weights(site), site.announced) == ([0, 0, 0], NONE)
    with name_servers(site, {"s1": 0, "s2": 2}):
        site.probe_and_pass()
        assert (weights(site), site.announced) == ([100, 0, 0], BOTH)
    told = {probe.kind: set[str]() for probe in site.health}
    for probe, health in site.health.items():
        told[probe.kind].add(health.reason)
    assert told["script"] == {
        "exit status 0",
        "exit status 1: error 2",
        "exit status 1: no answer: [Errno 111] Connection refused",
    }
