"""What a change of a table does to the traffic that goes by it, where another processor forwards meanwhile.

On one processor that the kernel never gives up, a batch of changes is one instant, and all of this looks perfect
whatever is done; so the last two tests show what lbnode does not do, and that it would be seen here.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from account import HEADING, Account, all_spoke, missing_flows
from network import KEYS, L4, SERVERS, Network, built, cluster_of
from traffic import Seen

from lbnode.lab.wait import wait_until
from lbnode.plan import Change
from lbnode.resources import DestinationOrder, VirtualService

pytestmark = pytest.mark.kernel

CALLS_PER_SECOND = 20
DEADLINE_S = 60.0
REPAIRS = 8
BATCHES = 60


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    plugins = request.config.pluginmanager
    with plugins.getplugin("capturemanager").global_and_fixture_disabled():
        plugins.getplugin("terminalreporter").write_line("\n".join(["", HEADING, *lines]))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with built(tmp_path_factory.mktemp("under-traffic")) as made:
        made.traffic.ask("calls", per_second=CALLS_PER_SECOND)
        yield made


@pytest.fixture
def measure(network: Network, table: list[str]) -> Callable[..., "contextmanager[Account]"]:
    """Opens the flows that are missing, does something, waits until every flow has spoken twice more, and counts."""
    traffic = network.traffic

    @contextmanager
    def measured(what: str, hit: Collection[str] = ()) -> Iterator[Account]:
        traffic.ask("drop_ended")
        while missing := missing_flows(traffic.flows(), hit):
            for (version, idle), count in missing.items():
                traffic.ask("open", version=version, count=count, idle=idle)
        traffic.calls()
        account = Account(what, hit)
        account.before = traffic.flows()
        yield account
        since = traffic.flows()
        wait_until(lambda: all_spoke(since, traffic.flows()), DEADLINE_S, "every flow to speak twice more or to end")
        account.flows = traffic.flows()
        account.calls += traffic.calls()
        table.extend(account.line(version) for version in KEYS)

    return measured


def of(network: Network, servers: Collection[str], idle: bool) -> list[Seen]:
    return [flow for flow in network.traffic.flows() if flow.server in servers and flow.idle == idle]


def nobody_noticed(account: Account) -> None:
    for version in KEYS:
        assert account.ended(version, hit=False) == []
        assert account.failed_calls(version) == []


def tables_are_equal(network: Network) -> None:
    assert [network.orders(name) for name in L4] == [network.canonical()] * 2


def wait_for_calls_to(network: Network, account: Account, server: str) -> None:
    def arrived() -> set[int]:
        account.calls += network.traffic.calls()
        return {call.version for call in account.calls if call.server == server} == set(KEYS)

    wait_until(arrived, DEADLINE_S, f"new connections of both families to {server}")


def test_nothing_happens(measure) -> None:
    """What this machine does to traffic by itself."""
    with measure("nothing") as account:
        pass
    nobody_noticed(account)


def test_a_server_added_at_the_end_is_one_new_row(network: Network, measure) -> None:
    network.cluster = cluster_of(SERVERS)
    with measure("a server added") as account:
        done = network.pass_everywhere()
        wait_for_calls_to(network, account, "s9")
    for version, key in KEYS.items():
        row = f"+ destination {key} -> {network.canonical()[version][-1]} weight 100"
        for lines in done.values():
            assert [line.startswith(row) for line in lines if f" {key} " in f"{line} "] == [True], lines
    nobody_noticed(account)
    tables_are_equal(network)


def test_a_wrong_order_is_repaired_live(network: Network, measure) -> None:
    """By whole passes, again and again, between the canonical order and others."""
    names = list(network.cluster.with_role("backend"))
    shuffle = random.Random(1).shuffle  # noqa: S311 - the same disorder every time
    with measure(f"{REPAIRS} orders spoiled and repaired by passes") as account:
        for _ in range(REPAIRS):
            wrong = names.copy()
            shuffle(wrong)
            network.do_pass("l4a", cluster_of(wrong), force=True)
            assert network.orders("l4a") != network.canonical()
            lines = network.do_pass("l4a")
            assert {line.split(" order ")[0] for line in lines} == {
                f"~ destination-order {key}" for key in KEYS.values()
            }
    nobody_noticed(account)
    tables_are_equal(network)


def change_orders(network: Network, orders: int) -> None:
    """So many times as fast as the driver does it; afterwards the canonical order stands."""
    canonical = network.canonical()
    for number in range(orders):
        for version, key in KEYS.items():
            there, back = DestinationOrder(key, canonical[version][::-1]), DestinationOrder(key, canonical[version])
            change = Change(back, there) if number % 2 == 0 else Change(there, back)
            network.nodes["l4a"].call(lambda change=change: network.ipvs("l4a").apply([change]))


def test_orders_change_as_fast_as_they_can(network: Network, measure) -> None:
    with measure(f"{BATCHES} orders turned round, quickly") as account:
        change_orders(network, BATCHES)
    nobody_noticed(account)
    tables_are_equal(network)


def test_the_flows_of_a_silent_server_end_and_no_others(network: Network, measure) -> None:
    """Its link is cut, its flows wait, probes find out, and then they end; when it is back it gets new ones."""

    def wait_in_vain() -> bool:
        return all(flow.asked > flow.answers for flow in of(network, {"s3"}, idle=False))

    with measure("a server cut off, then failed", {"s3"}) as account:
        network.cut("s3")
        wait_until(wait_in_vain, DEADLINE_S, "every active flow of s3 to be waiting")
        network.found_gone("s3")
        begun = time.monotonic()
        network.pass_everywhere()
        account.applied = time.monotonic()
        wait_until(lambda: has_ended(network, "s3", idle=False), DEADLINE_S, "the active flows of s3 to end")
        delays = [flow.ended - begun for flow in of(network, {"s3"}, idle=False)]
        account.note = f"{min(delays):.1f} to {max(delays):.1f} s after the pass began"
        network.traffic.ask("poke")
        wait_until(lambda: has_ended(network, "s3", idle=True), DEADLINE_S, "the idle flows of s3 to end")
    nobody_noticed(account)
    assert {flow.outcome for version in KEYS for flow in account.ended(version, hit=True)} == {"reset"}
    tables_are_equal(network)
    network.mend("s3")
    network.told("s3", "ready")
    with measure("and back again") as account:
        network.pass_everywhere()
        wait_for_calls_to(network, account, "s3")
    nobody_noticed(account)
    tables_are_equal(network)


def has_ended(network: Network, server: str, idle: bool) -> bool:
    return all(flow.outcome for flow in of(network, {server}, idle))


def test_a_false_alarm_ends_only_what_spoke_meanwhile(network: Network, measure) -> None:
    """The server lives all the time: people fail it, and take that back."""
    with measure("a live server failed and taken back", {"s5"}) as account:
        network.told("s5", "down # by mistake")
        network.pass_everywhere()
        account.applied = time.monotonic()
        wait_until(lambda: has_ended(network, "s5", idle=False), DEADLINE_S, "the active flows of s5 to end")
        network.told("s5", "ready")
        network.pass_everywhere()
        idle = of(network, {"s5"}, idle=True)
        network.traffic.ask("poke")
        wait_until(lambda: has_answered(network, idle), DEADLINE_S, "the idle flows of s5 to be answered")
        wait_for_calls_to(network, account, "s5")
    nobody_noticed(account)
    for version in KEYS:
        own = [flow for flow in account.flows if flow.server == "s5" and flow.version == version]
        assert {flow.idle: flow.outcome for flow in own} == {False: "reset", True: ""}
    tables_are_equal(network)


def has_answered(network: Network, before: list[Seen]) -> bool:
    now = of(network, {flow.server for flow in before}, idle=True)
    assert not any(flow.outcome for flow in now)
    return all(flow.answers == flow.asked for flow in now)


def test_a_change_of_scheduler_would_be_seen(network: Network, measure) -> None:
    """What lbnode never does where there is traffic: new flows are refused until the new scheduler is there."""
    rows = {name: [VirtualService(key, name, ()) for key in KEYS.values()] for name in ("rr", "mh")}

    def happened() -> bool:
        for before, after in (("mh", "rr"), ("rr", "mh")):
            changes = [Change(old, new) for old, new in zip(rows[before], rows[after], strict=True)]
            network.nodes["l4a"].call(lambda changes=changes: network.ipvs("l4a").apply(changes))
        account.calls += network.traffic.calls()
        return any(call.outcome == "refused" for call in account.calls)

    with measure("(never done) mh, rr and mh again") as account:
        wait_until(happened, DEADLINE_S, "a new connection to be refused")
        network.do_pass("l4a")
    tables_are_equal(network)


def test_expiry_of_flows_without_a_destination_would_be_seen(network: Network, measure) -> None:
    """What lbnode switches off: a packet between a row's removal and its return goes elsewhere for good."""
    setting = Path("/proc/sys/net/ipv4/vs/expire_nodest_conn")

    def happened() -> bool:
        change_orders(network, 10)
        return any(flow.outcome for flow in network.traffic.flows())

    with measure("(never done) expire_nodest_conn=1, orders"):
        network.nodes["l4a"].call(lambda: setting.write_text("1"))
        wait_until(happened, DEADLINE_S, "a flow to break")
        assert network.do_pass("l4a") == ["~ sysctl net.ipv4.vs.expire_nodest_conn value 1 -> 0"]
    tables_are_equal(network)
