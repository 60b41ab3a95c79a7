"""What a change of a table does to the traffic that goes by it, where another processor forwards meanwhile.

On one processor that the kernel never gives up, a batch of changes is one instant, and all of this looks perfect
whatever is done; so the last two tests show what lbnode does not do, and that it would be seen here.
"""

import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from network import KEYS, L4, SERVERS, Network, built, cluster_of
from traffic import Seen

from lbnode.lab.wait import wait_until
from lbnode.plan import Change
from lbnode.resources import DestinationOrder, VirtualService

pytestmark = pytest.mark.kernel

FLOWS = {False: 80, True: 20}
"""Of each family: those that say a line per second, and those that are idle."""
CALLS_PER_SECOND = 20
DEADLINE_S = 60.0
REPAIRS = 12
BATCHES = 100


@dataclass
class Account:
    """What became of the traffic while something was done. `hit` are the servers whose own flows are to end."""

    what: str
    hit: Collection[str] = ()
    begun: float = field(default_factory=time.monotonic)
    applied: float = 0.0
    note: str = ""
    before: list[Seen] = field(default_factory=list)
    flows: list[Seen] = field(default_factory=list)
    calls: list[Seen] = field(default_factory=list)

    def ended(self, version: int, hit: bool) -> list[Seen]:
        """The flows that ended, of the servers that were hit or of the others."""
        return [
            flow for flow in self.flows if flow.version == version and flow.outcome and (flow.server in self.hit) == hit
        ]

    def failed_calls(self, version: int, late: bool = True) -> list[Seen]:
        """New connections that failed; `late`: begun when the change had been made."""
        return [
            call
            for call in self.calls
            if call.version == version and call.outcome != "ok" and (call.started > self.applied) == late
        ]

    def line(self, version: int) -> str:
        flows = [flow for flow in self.flows if flow.version == version]
        calls = [call for call in self.calls if call.version == version]
        old = sum(flow.retransmits for flow in self.before if flow.version == version)
        own = sum(flow.server in self.hit for flow in flows)
        lost = sum(seen.retransmits for seen in (*flows, *calls)) - old
        counts = (
            f"{len(self.ended(version, hit=True))}/{own}",
            f"{len(self.ended(version, hit=False))}/{len(flows) - own}",
            f"{len(self.failed_calls(version, late=False))}",
            f"{len(self.failed_calls(version))}/{len(calls)}",
            str(lost),
        )
        return f"{self.what:<44} v{version} " + "".join(f"{text:>9}" for text in counts) + f"  {self.note}"


HEADING = f"{'':<47} " + "".join(f"{text:>9}" for text in ("own", "others", "gap", "new", "resent"))


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    reporter.write_line("")
    for line in (HEADING, *lines):
        reporter.write_line(line)


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
        alive = traffic.flows()
        for version in KEYS:
            for idle, wanted in FLOWS.items():
                missing = wanted - sum(flow.version == version and flow.idle == idle for flow in alive)
                traffic.ask("open", version=version, count=missing, idle=idle)
        traffic.calls()
        account = Account(what, hit)
        account.before = traffic.flows()
        yield account
        account.applied = account.applied or time.monotonic()
        since = traffic.flows()
        wait_until(lambda: all_spoke(since, traffic.flows()), DEADLINE_S, "every flow to speak twice more or to end")
        account.flows = traffic.flows()
        account.calls += traffic.calls()
        table.extend(account.line(version) for version in KEYS)

    return measured


def all_spoke(since: list[Seen], now: list[Seen]) -> bool:
    return all(
        flow.outcome or flow.idle or flow.answers >= before.answers + 2 for before, flow in zip(since, now, strict=True)
    )


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
        account.applied = time.monotonic()
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
            network.nodes["l4a"].call(lambda change=change: network.drivers("l4a")[-1].apply([change]))


def test_orders_change_as_fast_as_they_can(network: Network, measure) -> None:
    with measure(f"{BATCHES} orders reversed at once") as account:
        change_orders(network, BATCHES)
        account.note = f"{(time.monotonic() - account.begun) / BATCHES * 500:.0f} ms each"
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
        network.pass_everywhere()
        account.applied = time.monotonic()
        wait_until(lambda: has_ended(network, "s3", idle=False), DEADLINE_S, "the active flows of s3 to end")
        delays = [flow.ended - account.applied for flow in of(network, {"s3"}, idle=False)]
        account.note = f"ended after {min(delays):.1f}/{statistics.median(delays):.1f}/{max(delays):.1f} s"
        network.traffic.ask("poke")
        wait_until(lambda: has_ended(network, "s3", idle=True), DEADLINE_S, "the idle flows of s3 to end")
    nobody_noticed(account)
    assert {flow.outcome for version in KEYS for flow in account.ended(version, hit=True)} == {"reset"}
    tables_are_equal(network)
    network.mend("s3")
    network.told("s3", "ready")
    with measure("and back again") as account:
        network.pass_everywhere()
        account.applied = time.monotonic()
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
            network.nodes["l4a"].call(lambda changes=changes: network.drivers("l4a")[-1].apply(changes))
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

    with measure("(never done) expire_nodest_conn=1, orders") as account:
        network.nodes["l4a"].call(lambda: setting.write_text("1"))
        wait_until(happened, DEADLINE_S, "a flow to break")
        assert network.do_pass("l4a") == ["~ sysctl net.ipv4.vs.expire_nodest_conn value 1 -> 0"]
    tables_are_equal(network)
