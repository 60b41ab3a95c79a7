"""The cluster file as a file: read, refused as a whole, and turned into a frozen value."""

import copy
import os
import pickle
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from test_config_structure import GOOD, changed

from lbnode.config.load import load, parse, schema
from lbnode.errors import ConfigError, Missing, NotPermitted


def test_a_file_becomes_a_cluster(tmp_path: Path):
    file = tmp_path / "cluster.yaml"
    file.write_text(GOOD)
    cluster = load(file)
    assert list(cluster.nodes) == ["l4-1", "l4-2", "l7-1", "s1", "s2"]
    assert cluster.nodes["l4-1"].ipv4 == IPv4Address("192.0.2.141")
    assert cluster == parse(GOOD)


def test_problems_carry_the_file(tmp_path: Path):
    file = tmp_path / "cluster.yaml"
    file.write_text(changed(("role: l7", "role: l6")))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == f"{file}:9:16: role 'l6' is not one of l4, l7, backend"
    assert caught.value.exit_code == 78


def test_a_byte_order_mark_moves_nothing(tmp_path: Path):
    file = tmp_path / "cluster.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + changed(("bgp:", "bpg:")).encode())
    with pytest.raises(ConfigError, match=r"cluster.yaml:1:1: unknown key 'bpg'"):
        load(file)


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_lines_count_alike_whatever_ends_them(ending: str):
    with pytest.raises(ConfigError, match=r"cluster.yaml:9:16: role 'l6'"):
        parse(changed(("role: l7", "role: l6")).replace("\n", ending))


def test_a_byte_that_is_not_utf_8_is_located(tmp_path: Path):
    file = tmp_path / "cluster.yaml"
    file.write_bytes("bgp:\n  # für \xfc".encode() + b"\xfc")
    with pytest.raises(ConfigError, match=r"cluster.yaml:2:10: this byte is not UTF-8 \(save it as UTF-8\)"):
        load(file)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(Missing, match=r"^cannot read .*/cluster.yaml: No such file or directory$"):
        load(tmp_path / "cluster.yaml")
    with pytest.raises(Missing, match="Is a directory"):
        load(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything, so the refusal itself is made up
    with pytest.raises(NotPermitted, match=r"^cannot read .*: Permission denied$"):
        load(tmp_path / "cluster.yaml")


def test_a_cluster_is_frozen_and_hashable():
    cluster = parse(GOOD)
    assert hash(cluster) == hash(parse(GOOD))
    with pytest.raises(TypeError, match="frozen"):
        cluster.nodes["l4-1"] = cluster.nodes["l4-2"]
    with pytest.raises(TypeError, match="frozen"):
        cluster.nodes.clear()
    with pytest.raises(ValueError, match="frozen"):
        cluster.bgp = None  # type: ignore[assignment]


def test_a_cluster_can_be_copied_pickled_and_dumped():
    cluster = parse(GOOD)
    assert copy.deepcopy(cluster) == cluster
    assert pickle.loads(pickle.dumps(cluster)) == cluster  # noqa: S301 - our own bytes
    assert type(cluster).model_validate(cluster.model_dump(mode="json")) == cluster


def test_another_order_of_nodes_is_another_cluster():
    first, second = GOOD.splitlines(keepends=True)[6:8]
    swapped = changed((first + second, second + first))
    assert parse(swapped) != parse(GOOD)
    assert list(parse(swapped).nodes)[:2] == ["l4-2", "l4-1"]


def test_the_schema_describes_every_key():
    described = schema()
    assert described["required"] == ["bgp", "nodes"]
    for part in (described, *described["$defs"].values()):
        assert part["additionalProperties"] is False
        assert all({"description", "$ref"} & set(value) for value in part["properties"].values())
    node = described["$defs"]["Node"]["properties"]
    assert node["role"]["enum"] == ["l4", "l7", "backend"]
    assert (node["weight"]["minimum"], node["weight"]["maximum"]) == (1, 1000)
    assert described["properties"]["nodes"]["additionalProperties"] is False


def test_ten_thousand_nodes_load():
    nodes = "".join(f"  n{i}: {{role: backend, ipv6: 2001:db8:3::{i + 1:x}}}\n" for i in range(10_000))
    cluster = parse(changed(("services:", nodes + "services:")))
    assert len(cluster.members("web")) == 10_002
