"""The three-tier topology as values: what its files say, at both scales, and what is said about wrong ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lbnode.config.load import load as load_cluster
from lbnode.lab import build, layout, routing
from lbnode.lab.errors import LabError
from lbnode.lab.scenarios import choice
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
    assert len((FOLDER / "cluster.yaml").read_text().splitlines()) <= 48


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
    assert [route.prefix for route in lab.machines["s3"].routes] == ["::/0"]


def test_only_machines_between_lans_forward(lab):
    assert {name for name, machine in lab.machines.items() if machine.forwards} == {"internet", "r1", "r2"}


def test_no_two_routers_in_a_row_hash_alike(lab):
    assert len({build.HASH_FIELDS[lab.machines[name].hash] for name in ("internet", "r1", "r2")}) == 3


def test_routers_talk_to_every_l4_node_when_these_are_their_peers():
    small = build.load(FOLDER, "small")
    found = routing.sessions(small, "r1")
    assert [(s.label, s.address, s.asn) for s in found[:2]] == [
        ("l4_1_v4", "192.0.2.141", 64501),
        ("l4_1_v6", "2001:db8:c000:280::141", 64501),
    ]
    assert len(found) == 6
    assert all(session.client for session in found)


def test_reflectors_stand_between_l4_nodes_and_routers():
    seed = build.load(FOLDER, "seed")
    to_routers = [s.label for s in routing.sessions(seed, "rr1") if not s.client]
    assert to_routers == ["r1_v4", "r1_v6", "r2_v4", "r2_v6"]
    assert sum(session.client for session in routing.sessions(seed, "rr1")) == 14
    assert [s.label for s in routing.sessions(seed, "r2")] == ["rr1_v4", "rr1_v6", "rr2_v4", "rr2_v6"]


def test_bird_configurations_name_every_session(lab):
    sources = build.templates(FOLDER.parent, FOLDER)
    for name, machine in lab.machines.items():
        if machine.bird:
            text = routing.config(sources, machine.bird, lab, name, Path("/run/lab"))
            assert all(f"protocol bgp {session.label} " in text for session in routing.sessions(lab, name))


def test_a_route_by_a_machine_that_is_not_near_is_refused():
    source = layout.read(FOLDER)
    far = source.nodes["users"].model_copy(update={"routes": (layout.RouteEntry(to="default", via=("r1",)),)})
    wrong = source.model_copy(update={"nodes": {**source.nodes, "users": far}})
    with pytest.raises(LabError, match="cannot route default from users by r1: they share no LAN"):
        layout.resolve(wrong, "small", load_cluster(FOLDER / "cluster.yaml"), FOLDER)


def test_an_address_outside_its_lan_is_refused(tmp_path):
    text = (FOLDER / "topology.yaml").read_text().replace("203.0.113.254", "192.0.2.77")
    (tmp_path / "topology.yaml").write_text(text)
    cluster = load_cluster(FOLDER / "cluster.yaml")
    with pytest.raises(LabError, match=r"cannot place internet: 192\.0\.2\.77 is not in LAN street"):
        layout.resolve(layout.read(tmp_path), "small", cluster, tmp_path)


def test_every_mistake_in_a_topology_is_told_at_once(tmp_path):
    content = yaml.safe_load((FOLDER / "topology.yaml").read_text())
    content["nodes"]["r1"]["hash"] = "none"
    content["lans"]["east"] = ["east"]
    (tmp_path / "topology.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(LabError, match=r"(?s)lans\.east.*nodes\.r1\.hash"):
        layout.read(tmp_path)


def test_an_unknown_scale_is_refused():
    with pytest.raises(LabError, match="cannot find scale huge: three-tier has small, seed"):
        build.load(FOLDER, "huge")


def test_a_machine_knows_its_addresses_by_family(lab):
    router = lab.machines["r1"]
    assert router.addresses(4) == ("192.0.2.2", "192.0.2.129")
    assert replace(router, ports=()).addresses(6) == ()


def two_sides(**changes):
    """Two routers with a LAN each, a backend behind either, and two machines with clients; parts replaced by name."""
    nodes = {
        "u1": {"clients": True, "lans": {"street": ["203.0.113.1", "203.0.113.2"]}},
        "u2": {"clients": True, "lans": {"street": ["203.0.113.9"]}},
        "cr": {"lans": {"street": ["203.0.113.254"], "middle": ["192.0.2.1"]}, "bird": "cr.j2", "asn": 64496},
        "r2": {
            "lans": {"middle": ["192.0.2.2"], "left": ["192.0.2.33"]},
            "bird": "r.j2",
            "asn": 64497,
            "neighbors": ["cr"],
        },
        "r3": {"lans": {"right": ["192.0.2.65"]}},
    }
    content = {
        "title": "two sides",
        "scales": {"small": {"cluster": "cluster.yaml"}},
        "lans": {
            "street": ["203.0.113.0/24"],
            "middle": ["192.0.2.0/29"],
            "left": ["192.0.2.32/29"],
            "right": ["192.0.2.64/29"],
        },
        "vips": ["198.51.100.0/24"],
        "cluster": {
            "lan": "left",
            "routes": [{"to": "default", "via": ["r2"]}],
            "nodes": {"s2": {"lan": "right", "routes": [{"to": "default", "via": ["r3"]}], "bird": "server.j2"}},
        },
        "nodes": nodes,
    }
    return layout.TopologyFile.model_validate({**content, **changes})


@pytest.fixture
def two_servers(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "bgp: {local_asn: 64500, peers: {r2: {address: 192.0.2.33, asn: 64497}}}\n"
        "nodes: {s1: {role: backend, ipv4: 192.0.2.34}, s2: {role: backend, ipv4: 192.0.2.66}}\n"
        "services: {www: {vips: [198.51.100.1], pool: web, through: backend, announce: backend}}\n"
        "pools: {web: {nodes: [s1]}}\n"
    )
    return load_cluster(path)


def test_machines_of_the_cluster_file_may_stand_in_different_places(two_servers, tmp_path):
    machines = layout.resolve(two_sides(), "small", two_servers, tmp_path).machines
    found = {name: (machines[name].ports[0].lan, machines[name].routes[0].gateways) for name in ("s1", "s2")}
    assert found == {"s1": ("left", ("192.0.2.33",)), "s2": ("right", ("192.0.2.65",))}
    assert (machines["s1"].bird, machines["s2"].bird) == ("", "server.j2")


def test_several_machines_may_have_clients(two_servers, tmp_path):
    users = layout.resolve(two_sides(), "small", two_servers, tmp_path).users
    assert {user.name: user.addresses(4) for user in users} == {
        "u1": ("203.0.113.1", "203.0.113.2"),
        "u2": ("203.0.113.9",),
    }


def test_neighbors_speak_with_each_other_whichever_side_says_so(two_servers, tmp_path):
    lab = layout.resolve(two_sides(), "small", two_servers, tmp_path)
    assert [(s.label, s.own, s.address, s.asn, s.interface) for s in routing.sessions(lab, "cr")] == [
        ("r2_v4", "192.0.2.1", "192.0.2.2", 64497, "middle")
    ]
    assert [(s.label, s.asn, s.client) for s in routing.sessions(lab, "r2")] == [
        ("s1_v4", 64500, True),
        ("cr_v4", 64496, False),
    ]
    assert routing.sessions(lab, "r3") == []


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("cluster", {"nodes": {}}, r"cannot place s2: 192\.0\.2\.66 is not in LAN left"),
        ("cluster", {"lan": "nowhere"}, "cannot place s1: there is no LAN nowhere, but street, middle"),
        ("nodes", {"u1": {"neighbors": ["r9"]}}, "cannot connect u1 with r9: there is no such machine"),
        ("nodes", {"u1": {"clients": False}, "u2": {"clients": False}}, "no machine has clients"),
    ],
)
def test_names_that_fit_nowhere_are_told(two_servers, tmp_path, part, change, message):
    content = two_sides().model_dump(mode="json")
    for name, value in change.items():
        content[part][name] = {**content[part][name], **value} if part == "nodes" else value
    with pytest.raises(LabError, match=message):
        layout.resolve(two_sides(**{part: content[part]}), "small", two_servers, tmp_path)


def test_every_topology_has_a_scenario_and_its_steps_have_names_of_their_own():
    folders = {path.parent.name for path in share("lab").glob("*/topology.yaml")}
    assert folders == set(choice.SCENARIOS)
    for name in folders:
        names = [step.name for step in choice.scenario_of(name).steps]
        assert len(set(names)) == len(names) > 0


def test_a_topology_without_a_scenario_is_told():
    with pytest.raises(LabError, match="cannot run nowhere: it has no scenario"):
        choice.scenario_of("nowhere")
