"""The classifier as rows of a node: made, seen, repaired, renewed and removed, beside other people's filters."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from classified import Classified, classified, generation

from lbnode.chance import bpf, kernel, layout, program
from lbnode.chance.build import build
from lbnode.chance.driver import ChanceDriver, digest_of
from lbnode.lab import links
from lbnode.lab.namespaces import Node
from lbnode.net import filters
from lbnode.plan import Plan, diff
from lbnode.reconcile import apply
from lbnode.resources import (
    ChanceEndpoint,
    ChanceFilter,
    ChanceOwn,
    ChancePeer,
    ChanceTable,
    Classifier,
    Row,
    ServiceKey,
)

pytestmark = pytest.mark.kernel
FOLDER = Path("/sys/fs/bpf/lbnode")
DIGEST = program.built()[1]
CONTENT = layout.pack([generation(4, [1, 2, 3])])
OTHER = layout.pack([generation(4, [1, 2])])
WANTED: tuple[Row, ...] = (
    Classifier(DIGEST),
    ChanceTable(0, digest_of(CONTENT), CONTENT),
    ChanceTable(7, digest_of(OTHER), OTHER),
    ChanceEndpoint(ServiceKey("198.51.100.1", "tcp", 80), 0),
    ChanceEndpoint(ServiceKey("2001:db8:5::1", "tcp", 443), 7, by_port=False),
    ChancePeer("192.0.2.2", "real-server"),
    ChancePeer("2001:db8::130", "l4"),
    ChanceOwn(4, "192.0.2.1"),
    ChanceOwn(6, "2001:db8::1"),
    ChanceFilter("eth0", DIGEST),
)


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("n") as made, Node("other", private=False) as other:
        links.connect(links.Port(made, "eth0", ("192.0.2.1/24",)), links.Port(other, "eth0", ("192.0.2.2/24",)))
        yield made


def plan(node: Node, wanted: Sequence[Row]) -> Plan:
    return node.call(lambda: diff(ChanceDriver(FOLDER).observe(wanted).rows, wanted))


def carry_out(node: Node, wanted: Sequence[Row]) -> list[str]:
    """The errors."""
    changes = plan(node, wanted)
    return [result.error for result in node.call(lambda: apply(changes, [ChanceDriver(FOLDER)])) if result.error]


def make(node: Node, wanted: Sequence[Row] = WANTED) -> None:
    """One pass; nothing may be left to do."""
    assert carry_out(node, wanted) == []
    assert str(plan(node, wanted)) == ""


def tc(node: Node, text: str) -> str:
    return node.run(["tc", *text.split()], check=True).stdout


def test_it_is_made_and_seen_and_made_once(node: Node) -> None:
    assert node.call(lambda: kernel.refused(FOLDER)) == ""
    assert len(plan(node, WANTED).changes) == len(WANTED)
    make(node)
    shown = tc(node, "filter show dev eth0 ingress")
    assert "lbnode-second-chance direct-action" in shown
    assert set(node.call(lambda: ChanceDriver(FOLDER).observe(())).rows) == set(WANTED)


def test_it_goes_without_a_trace(node: Node) -> None:
    before = tc(node, "qdisc show dev eth0")
    make(node)
    make(node, ())
    assert tc(node, "qdisc show dev eth0") == before
    assert not node.exists(FOLDER)


def test_filters_of_others_stay(node: Node) -> None:
    tc(node, "qdisc add dev eth0 clsact")
    tc(node, "filter add dev eth0 ingress prio 5 matchall action ok")
    tc(node, "filter add dev eth0 egress prio 5 matchall action ok")
    before = [tc(node, f"filter show dev eth0 {way}") for way in ("ingress", "egress")]
    make(node)
    make(node, ())
    assert [tc(node, f"filter show dev eth0 {way}") for way in ("ingress", "egress")] == before


def test_another_queueing_discipline_will_do(node: Node) -> None:
    tc(node, "qdisc add dev eth0 ingress")
    make(node)
    make(node, ())
    assert "ingress" in tc(node, "qdisc show dev eth0")


def test_a_filter_in_its_place_is_told_and_left_alone(node: Node) -> None:
    tc(node, "qdisc add dev eth0 clsact")
    node.call(_attach_another)
    wanted = node.call(lambda: ChanceDriver(FOLDER).observe(WANTED))
    assert wanted.foreign == () or wanted.foreign == ("filter on eth0 ingress, priority 27746",)
    assert carry_out(node, WANTED) == [
        "cannot make chance-filter eth0: another filter stands there with priority 27746"
    ]
    assert "somebody" in tc(node, "filter show dev eth0 ingress")


def _attach_another() -> None:
    loaded, _ = program.load_only()
    name, filters.NAME = filters.NAME, "somebody"
    try:
        filters.attach(filters.devices()["eth0"], loaded)
    finally:
        filters.NAME = name


DAMAGES = {
    "the filter is removed": "tc filter del dev eth0 ingress",
    "the queueing discipline is removed": "tc qdisc del dev eth0 clsact",
    "everything is unpinned": "rm -r /sys/fs/bpf/lbnode",
    "the program is unpinned": f"rm /sys/fs/bpf/lbnode/program-{DIGEST}",
    "a map is unpinned": "rm /sys/fs/bpf/lbnode/map-peers",
    "a table is unpinned": "rm /sys/fs/bpf/lbnode/table-7",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_seen_and_repaired(node: Node, damage: str) -> None:
    make(node)
    node.run(damage.split(), check=True)
    assert plan(node, WANTED).changes
    for _ in range(2):  # what stood in a map that is made anew shows only then
        carry_out(node, WANTED)
    assert str(plan(node, WANTED)) == ""
    assert "lbnode-second-chance" in tc(node, "filter show dev eth0 ingress")


def test_a_change_within_a_table_is_seen_and_repaired(node: Node) -> None:
    make(node)

    def twist() -> None:
        bpf.update(bpf.get(FOLDER / "table-0"), (77).to_bytes(4, "little"), bytes(64))
        bpf.delete(bpf.get(FOLDER / "map-peers"), layout.mapped("192.0.2.2"))

    node.call(twist)
    assert [change.row.title for change in plan(node, WANTED).changes] == ["0", "192.0.2.2"]
    make(node)


def test_a_table_is_replaced_as_a_whole(node: Node) -> None:
    make(node)
    number = node.call(lambda: bpf.info_of_map(bpf.get(FOLDER / "table-0")).id)
    make(node, tuple(ChanceTable(0, digest_of(OTHER), OTHER) if row.key == WANTED[1].key else row for row in WANTED))
    assert node.call(lambda: bpf.info_of_map(bpf.get(FOLDER / "table-0")).id) != number


def test_a_new_program_keeps_the_maps(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade of lbnode: another object file, the same maps; tables and counters live on."""
    make(node)
    maps = node.call(lambda: [bpf.info_of_map(bpf.get(path)).id for path in sorted(FOLDER.glob("[mt]a*"))])
    other = tmp_path / "other.o"
    other.write_bytes(program.OBJECT.read_bytes() + b"\0")
    monkeypatch.setattr(program, "OBJECT", other)
    program.built.cache_clear()
    try:
        digest = program.built()[1]
        wanted = (Classifier(digest), *WANTED[1:-1], ChanceFilter("eth0", digest))
        assert [str(change) for change in plan(node, wanted).changes] == [
            f"~ classifier of this node program {DIGEST} -> {digest}",
            f"~ chance-filter eth0 program {DIGEST} -> {digest}",
        ]
        make(node, wanted)
        assert node.call(lambda: [bpf.info_of_map(bpf.get(path)).id for path in sorted(FOLDER.glob("[mt]a*"))]) == maps
    finally:
        monkeypatch.undo()
        program.built.cache_clear()


def test_a_device_that_is_not_there_is_an_error_of_its_own(node: Node) -> None:
    wanted = (*WANTED, ChanceFilter("eth7", DIGEST))
    assert carry_out(node, wanted) == ["cannot make chance-filter eth7: there is no such device"]


def test_only_devices_with_own_addresses_carry_it(node: Node) -> None:
    assert node.call(lambda: filters.carriers(frozenset(["192.0.2.1"]))) == ("eth0",)
    assert node.call(lambda: filters.carriers(frozenset(["192.0.2.77", "127.0.0.1"]))) == ()


def test_without_a_bpf_file_system_it_is_said(node: Node, tmp_path: Path) -> None:
    said = node.call(lambda: kernel.refused(tmp_path / "lbnode"))
    assert said == f"there is no BPF file system at {tmp_path}: mount -t bpf bpf {tmp_path}"


@pytest.mark.usefixtures("netns")
def test_the_object_is_what_the_compiler_makes_of_the_source(tmp_path: Path) -> None:
    """By Debian 12's clang, 14.0.6; another one may make other code of it, which `make classifier` then takes in."""
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    build(tmp_path / "fresh.o")
    fresh = program.elf.parse((tmp_path / "fresh.o").read_bytes())
    assert fresh == program.built()[0], version
    with classified() as made:
        assert isinstance(made, Classified)
