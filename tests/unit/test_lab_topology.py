"""The three-tier topology as values: what its files say, at both scales, and what is said about wrong ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lbnode.config.load import load as load_cluster
from lbnode.lab import bird, build, topology
from lbnode.lab.errors import LabError
from lbnode.templates import share

FOLDER = share("lab") / "three-tier"


@pytest.fixture(scope="module", params=["small", "seed"])
def lab(request):
    return build.load(FOLDER, request.param)


def test_the_small_scale_is_the_one_of_every_day():
    small = build.load(FOLDER, "small")
    assert (len(small.routers), len(small.with_role("l4")), len(small.with_role("l7"))) == (2, 3, 4)
    assert len(small.with_role("backend")) == 4
    assert len(small.clients.addresses(4)) == len(small.clients.addresses(6)) == 50
    assert "rr1" not in small.machines


def test_the_seed_scale_has_reflectors_and_more_of_everything():
    seed = build.load(FOLDER, "seed")
    assert (len(seed.routers), len(seed.with_role("l4")), len(seed.with_role("l7"))) == (2, 7, 13)
    assert len(seed.with_role("backend")) == 10
    assert len(seed.clients.addresses(4)) == 200
    assert {"rr1", "rr2"} <= seed.machines.keys()


def test_the_small_cluster_file_fits_on_one_screen():
    assert len((FOLDER / "cluster.yaml").read_text().splitlines()) <= 40


def test_addresses_are_documentation_ranges(lab):
    ranges = ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:")
    every = [address for machine in lab.machines.values() for port in machine.ports for address in port.addresses]
    vips = [str(vip) for service in lab.cluster.services.values() for vip in service.vips]
    assert all(address.startswith(ranges) for address in every + vips)
    assert len(set(every)) == len(every)


def test_replies_leave_by_both_routers(lab):
    routes = {route.prefix: route.gateways for route in lab.machines["l7-1"].routes}
    assert routes == {
        "0.0.0.0/0": ("192.0.2.129", "192.0.2.130"),
        "::/0": ("2001:db8:c000:280::129", "2001:db8:c000:280::130"),
    }
    assert [route.prefix for route in build.load(FOLDER, "seed").machines["s1"].routes] == ["::/0"]


def test_only_machines_between_lans_forward(lab):
    assert {name for name, machine in lab.machines.items() if machine.forwards} == {"internet", "r1", "r2"}


def test_no_two_routers_in_a_row_hash_alike(lab):
    assert len({build.HASH_FIELDS[lab.machines[name].hash] for name in ("internet", "r1", "r2")}) == 3


def test_routers_talk_to_every_l4_node_when_these_are_their_peers():
    small = build.load(FOLDER, "small")
    found = bird.sessions(small, "r1")
    assert [(s.label, s.address, s.asn) for s in found[:2]] == [
        ("l4_1_v4", "192.0.2.141", 64501),
        ("l4_1_v6", "2001:db8:c000:280::141", 64501),
    ]
    assert len(found) == 6
    assert all(session.client for session in found)


def test_reflectors_stand_between_l4_nodes_and_routers():
    seed = build.load(FOLDER, "seed")
    to_routers = [s.label for s in bird.sessions(seed, "rr1") if not s.client]
    assert to_routers == ["r1_v4", "r1_v6", "r2_v4", "r2_v6"]
    assert sum(session.client for session in bird.sessions(seed, "rr1")) == 14
    assert [s.label for s in bird.sessions(seed, "r2")] == ["rr1_v4", "rr1_v6", "rr2_v4", "rr2_v6"]


def test_bird_configurations_name_every_session(lab):
    sources = build.templates(FOLDER)
    for name, machine in lab.machines.items():
        if machine.bird:
            text = bird.config(sources, lab, name, Path("/run/lab"))
            assert all(f"protocol bgp {session.label} " in text for session in bird.sessions(lab, name))


def test_a_route_by_a_machine_that_is_not_near_is_refused():
    source = topology.read(FOLDER)
    far = source.nodes["users"].model_copy(update={"routes": (topology.RouteEntry(to="default", via=("r1",)),)})
    wrong = source.model_copy(update={"nodes": {**source.nodes, "users": far}})
    with pytest.raises(LabError, match="cannot route default from users by r1: they share no LAN"):
        topology.resolve(wrong, "small", load_cluster(FOLDER / "cluster.yaml"), FOLDER)


def test_an_address_outside_its_lan_is_refused(tmp_path):
    text = (FOLDER / "topology.yaml").read_text().replace("203.0.113.254", "192.0.2.77")
    (tmp_path / "topology.yaml").write_text(text)
    cluster = load_cluster(FOLDER / "cluster.yaml")
    with pytest.raises(LabError, match=r"cannot place internet: 192\.0\.2\.77 is not in LAN street"):
        topology.resolve(topology.read(tmp_path), "small", cluster, tmp_path)


def test_every_mistake_in_a_topology_is_told_at_once(tmp_path):
    content = yaml.safe_load((FOLDER / "topology.yaml").read_text())
    content["nodes"]["r1"]["hash"] = "none"
    content["lans"]["east"] = ["east"]
    (tmp_path / "topology.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(LabError, match=r"(?s)lans\.east.*nodes\.r1\.hash"):
        topology.read(tmp_path)


def test_an_unknown_scale_is_refused():
    with pytest.raises(LabError, match="cannot find scale huge: three-tier has small, seed"):
        build.load(FOLDER, "huge")


def test_a_machine_knows_its_addresses_by_family(lab):
    router = lab.machines["r1"]
    assert router.addresses(4) == ("192.0.2.2", "192.0.2.129")
    assert replace(router, ports=()).addresses(6) == ()
