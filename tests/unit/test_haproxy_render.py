"""What must hold of every rendered haproxy.cfg; whole files stand in tests/golden."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode import templates
from lbnode.config.model import Cluster, Node
from lbnode.errors import LbnodeError
from lbnode.haproxy import quoting, render, views
from lbnode.paths import Paths
from lbnode.templates import Templates

SHIPPED = templates.load()


def cluster(**changes: object) -> Cluster:
    return Cluster.model_validate(
        {
            "bgp": {"local_asn": 64512, "peers": {"router": {"address": "192.0.2.1", "asn": 64511}}},
            "nodes": {
                "web1": {"role": "l7", "ipv4": "192.0.2.21"},
                "app1": {"role": "backend", "ipv4": "192.0.2.31"},
            },
            "services": {"www": {"vips": ["198.51.100.1"], "pool": "apps"}},
            "pools": {"apps": {}},
            **changes,
        }
    )


def rendered(version: tuple[int, int] = (2, 6), shipped: Templates = SHIPPED, **changes: object) -> str:
    return render.config(shipped, cluster(**changes), "web1", Paths(), version).text


def own(old: str, new: str) -> Templates:
    """An operator's template: the shipped one with a change."""
    return replace(SHIPPED, sources={render.TEMPLATE: SHIPPED.sources[render.TEMPLATE].replace(old, new)})


def test_the_first_line_says_whose_file_it_is() -> None:
    assert rendered().startswith(render.HEADER)
    assert "do not edit" in rendered().splitlines()[0]


def test_the_digest_is_in_the_file_and_follows_its_content() -> None:
    text = rendered()
    assert f"description lbnode {render.digest(text)}\n" in text
    assert render.digest(text) == render.digest(rendered())
    assert render.digest(text) != render.digest(rendered(health={"port": 81}))
    assert render.digest("global\n    description something else\n") == ""


def test_an_operators_template_that_lost_the_digest_is_refused() -> None:
    with pytest.raises(LbnodeError, match=r"cannot use .*haproxy\.cfg\.j2: .*description lbnode \{\{ digest \}\}"):
        rendered(shipped=own("description lbnode {{ digest }}", ""))


def test_newer_keywords_only_for_the_versions_that_know_them() -> None:
    for version in ((2, 6), (2, 8), (3, 2)):
        assert "fd-hard-limit" in rendered(version)
        assert "maxconn" not in rendered(version).replace("# maxconn", "")
    assert "fd-hard-limit" not in rendered((2, 4))
    assert "maxconn 50000\n" in rendered((2, 4))


def test_the_enabler_is_the_first_section_with_servers() -> None:
    sections = [line.split() for line in rendered().splitlines() if line and not line.startswith((" ", "#"))]
    assert sections[:3] == [["global"], ["defaults"], ["backend", "enabler"]]


def test_vips_are_bound_by_address_and_never_to_a_device() -> None:
    text = rendered(services={"www": {"vips": ["198.51.100.1", "2001:db8::1"], "pool": "apps"}})
    assert "bind 198.51.100.1:80 mss 1440\n" in text
    assert "bind [2001:db8::1]:80 mss 1400\n" in text
    assert " interface " not in text


@pytest.mark.parametrize(
    ("tunnel", "ipvs", "bind"),
    [
        ({"mtu": 9000}, {}, "bind 198.51.100.1:80 mss 8940\n"),
        ({}, {"tunnel": "gue"}, "bind 198.51.100.1:80 mss 1428\n"),
        ({"clamp_mss": False}, {}, "bind 198.51.100.1:80\n"),
    ],
)
def test_clients_are_told_what_fits_into_the_tunnel(tunnel: object, ipvs: object, bind: str) -> None:
    text = rendered(tunnel=tunnel, services={"www": {"vips": ["198.51.100.1"], "pool": "apps", "ipvs": ipvs}})
    assert f"    {bind}" in text


def test_frontends_and_backends_never_share_a_name() -> None:
    # HAProxy 3.3 refuses it; a service may be called like one of our own sections.
    text = rendered(services={name: {"vips": ["198.51.100.1"], "pool": "apps"} for name in ("enabler", "health")})
    names = [line.split()[1] for line in text.splitlines() if line.startswith(("frontend", "backend"))]
    assert len(names) == len(set(names)) == 8


def test_a_node_or_server_without_an_address_is_said_so() -> None:
    with pytest.raises(LbnodeError, match=r"cannot render haproxy\.cfg: there is no node web9"):
        render.config(SHIPPED, cluster(), "web9", Paths(), (2, 6))
    with pytest.raises(LbnodeError, match="node web1 has no address"):
        rendered(nodes={"web1": {"role": "l7"}})
    with pytest.raises(LbnodeError, match="node app1 has no address"):
        rendered(nodes={"web1": {"role": "l7", "ipv4": "192.0.2.21"}, "app1": {"role": "backend"}})


def test_ids_stay_when_servers_come_and_go_and_fit_haproxys_hash() -> None:
    names = [f"app{number}" for number in range(3000)]
    ids = views.server_ids(names)
    assert len(set(ids.values())) == len(names)
    assert all(0 < number < 1 << 20 for number in ids.values())
    few = views.server_ids(names[:10])
    assert few == {name: ids[name] for name in names[:10]}
    assert views.server_ids(names[1:10]).items() <= few.items()


def test_weights_stay_in_haproxys_range_and_in_proportion() -> None:
    def of(*values: int) -> list[int]:
        nodes = {f"app{place}": Node.model_validate({"role": "backend", "weight": v}) for place, v in enumerate(values)}
        return list(views.weights(nodes).values())

    assert of(100, 50) == [100, 50]
    assert of(1000, 500, 1) == [256, 128, 1]
    assert of() == []


@pytest.mark.parametrize(("seconds", "text"), [(2, "2s"), (0.5, "500ms"), (1.25, "1250ms"), (0.0001, "1ms")])
def test_durations_as_haproxy_writes_them(seconds: float, text: str) -> None:
    assert quoting.duration(seconds) == text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_escaped_words_are_read_back_as_they_were(value: str) -> None:
    word = quoting.escaped(value)
    read, letters = "", iter(word)
    for letter in letters:
        assert letter not in " #\"'", "would end or quote the word"
        read += next(letters) if letter == "\\" else letter
    assert read == value


@pytest.mark.parametrize("value", ["", "a\nbind :1", "a\0", "\x7f"])
def test_what_nothing_can_quote_is_refused(value: str) -> None:
    with pytest.raises(LbnodeError, match="cannot write"):
        quoting.escaped(value)
