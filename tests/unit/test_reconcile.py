"""The pass, on drivers that keep their rows in a dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.drivers import Observed, Result
from lbnode.errors import ApplyFailed, UnsafePlan
from lbnode.reconcile import ensure, plan, run
from lbnode.resources import (
    Announcement,
    Destination,
    DestinationOrder,
    File,
    Link,
    LocalRoute,
    Row,
    Running,
    ServiceKey,
    Sysctl,
    VirtualService,
)
from lbnode.roles.inputs import Desired

WEB = ServiceKey("198.51.100.1", "tcp", 80)


class FakeDriver:
    """Holds rows; refuses to make those whose key is in `broken`."""

    def __init__(self, *kinds: type[Row], rows=(), broken=(), foreign=()):
        self.kinds = kinds
        self.rows = {row.key: row for row in rows}
        self.broken, self.foreign = set(broken), tuple(foreign)

    def observe(self, wanted):
        return Observed(tuple(self.rows.values()), self.foreign)

    def apply(self, changes):
        results = []
        for change in changes:
            if change.row.key in self.broken:
                results.append(Result(change, "cannot: broken"))
                continue
            if change.new is None:
                self.rows.pop(change.row.key, None)
            else:
                self.rows[change.row.key] = change.new
            results.append(Result(change))
        return results


def l4_drivers(**options):
    return [
        FakeDriver(Sysctl, Link),
        FakeDriver(File),
        FakeDriver(Running, Announcement, **options.get("bgp", {})),
        FakeDriver(VirtualService, Destination, DestinationOrder, **options.get("ipvs", {})),
    ]


DESIRED = Desired(
    (
        Sysctl("net.ipv4.vs.sloppy_tcp", "1"),
        Link("lb-vip", "dummy"),
        File("/etc/lb/generated/exabgp.conf", "one\n"),
        Running("exabgp", "one"),
        VirtualService(WEB),
        Destination(WEB, "192.0.2.193", 100, serial=1),
        DestinationOrder(WEB, ("192.0.2.193",)),
        Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137"),
    )
)


def test_a_pass_makes_it_so_and_the_second_plans_nothing():
    drivers = l4_drivers(ipvs={"foreign": ["198.51.100.9:53/udp"]})
    first = run(DESIRED, drivers)
    assert [str(change.row.KIND) for change in first.plan.changes] == [
        "sysctl", "link", "file", "running", "virtual-service", "destination", "announcement",
    ]  # fmt: skip
    # The fake does not keep order by itself, as the kernel does.
    drivers[3].rows[DESIRED.rows[6].key] = DESIRED.rows[6]
    assert not plan(DESIRED, drivers)
    assert first.plan.foreign == ("198.51.100.9:53/udp",)


def test_nothing_is_announced_on_top_of_a_failure():
    broken = Destination(WEB, "192.0.2.193", 100)
    drivers = l4_drivers(ipvs={"broken": [broken.key]})
    done = run(DESIRED, drivers)
    assert not [row for row in drivers[2].rows.values() if isinstance(row, Announcement)]
    assert any("held back: destination 198.51.100.1:80/tcp -> 192.0.2.193 failed" in error for error in done.errors)
    with pytest.raises(ApplyFailed, match="cannot make this node right"):
        done.raise_if_failed()


def test_a_program_is_not_reloaded_when_its_file_could_not_be_written():
    drivers = l4_drivers()
    drivers[1] = FakeDriver(File, broken=[DESIRED.rows[2].key])
    run(DESIRED, drivers)
    assert Running("exabgp", "one") not in drivers[2].rows.values()


def test_a_program_that_does_not_run_holds_nothing_back():
    drivers = l4_drivers(bgp={"broken": [("running", "exabgp")]})
    run(DESIRED, drivers)
    assert [row for row in drivers[2].rows.values() if isinstance(row, Announcement)]


def test_a_server_gets_no_new_flows_while_a_route_would_refuse_them():
    down, up = Destination(WEB, "192.0.2.193", 0), Destination(WEB, "192.0.2.193", 100)
    other = Destination(WEB, "192.0.2.194", 0), Destination(WEB, "192.0.2.194", 100)
    route = LocalRoute("192.0.2.193", "192.0.2.137")
    ipvs = FakeDriver(Destination, rows=[down, other[0]])
    done = run(Desired((up, other[1])), [FakeDriver(LocalRoute, rows=[route], broken=[route.key]), ipvs])
    assert set(ipvs.rows.values()) == {down, other[1]}
    assert any("held back: local-route 192.0.2.193 failed" in error for error in done.errors)


def test_a_withdrawal_is_carried_out_whatever_else_fails():
    announced = DESIRED.rows[-1]
    drivers = l4_drivers(ipvs={"broken": [("virtual-service", *WEB)]}, bgp={"rows": [announced]})
    run(Desired(DESIRED.rows[:-1], {announced.key: "0 of 2 servers up"}), drivers)
    assert announced not in drivers[2].rows.values()


def test_a_change_that_does_not_take_is_an_error():
    class Liar(FakeDriver):
        def apply(self, changes):
            return [Result(change) for change in changes]

    done = run(Desired((Link("lb-vip", "dummy"),)), [Liar(Link)])
    assert done.errors == ["+ link lb-vip type dummy state up: did not take"]


def test_a_dangerous_plan_changes_nothing_unless_forced():
    rows = [VirtualService(WEB), Destination(WEB, "192.0.2.193", 100), DestinationOrder(WEB, ("192.0.2.193",))]
    drivers = l4_drivers(ipvs={"rows": rows})
    with pytest.raises(UnsafePlan):
        run(Desired(), drivers)
    assert len(drivers[3].rows) == 3
    run(Desired(), drivers, force=True)
    assert VirtualService(WEB) not in drivers[3].rows.values()


weights = st.dictionaries(st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3"]), st.integers(0, 2))
happenings = st.lists(
    st.tuples(st.sampled_from(["nothing", "drift", "decision", "foreign"]), weights), min_size=1, max_size=6
)


def table(of):
    rows = [VirtualService(WEB), DestinationOrder(WEB, tuple(of))]
    return tuple(rows + [Destination(WEB, address, weight) for address, weight in of.items()])


@given(happenings)
def test_an_earlier_plan_changes_no_answer(things):
    """Whatever happens between the passes: somebody changes the kernel's rows, other ones are wanted, or nothing."""
    ipvs = FakeDriver(VirtualService, Destination, DestinationOrder)
    desired, last = Desired(table({"192.0.2.1": 1})), None
    for what, of in things:
        if what == "drift":
            ipvs.rows = {row.key: row for row in table(of)}
        elif what == "decision":
            desired = Desired(table(of))
        elif what == "foreign":
            ipvs.foreign = tuple(of)
        afresh = plan(desired, [ipvs])
        again = plan(desired, [ipvs], last)
        assert (again, again.actual, again.desired) == (afresh, afresh.actual, afresh.desired)
        last = run(desired, [ipvs], force=True, last=last).left
        assert not last


def test_a_pass_in_which_nothing_happens_compares_nothing():
    drivers = l4_drivers()
    left = run(DESIRED, drivers).left
    assert run(DESIRED, drivers, last=left).left is left


def test_ensuring_makes_what_is_wanted_and_takes_nothing_away():
    standing = FakeDriver(Sysctl, rows=[Sysctl("net.ipv4.ip_forward", "0"), Sysctl("net.core.somaxconn", "9")])
    done = ensure(Desired((Sysctl("net.ipv4.ip_forward", "1"), Sysctl("net.ipv4.vs.pmtu_disc", "0"))), [standing])
    assert done.errors == []
    assert {row.name: row.value for row in standing.rows.values()} == {
        "net.ipv4.ip_forward": "1",
        "net.core.somaxconn": "9",
        "net.ipv4.vs.pmtu_disc": "0",
    }
    assert not ensure(Desired((Sysctl("net.ipv4.ip_forward", "1"),)), [standing]).results


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_ensured_for_an_announced_vip_is_not_done_quietly(announced):
    """Clients' packets come for it, though the ground does not ask for announcements."""
    seen = []

    class Watching(FakeDriver):
        def apply(self, changes):
            seen.extend(change.quiet for change in changes)
            return super().apply(changes)

    prefix = Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.137")
    drivers = [FakeDriver(Announcement, rows=[prefix] * announced), Watching(VirtualService)]
    ensure(Desired((VirtualService(WEB),)), drivers)
    assert seen == [not announced]
