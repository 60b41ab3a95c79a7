"""The keepalived stack's files, of both scales: what is in them, and that the programs take them."""

import re
from pathlib import Path

import pytest

from lbnode.bgp import exabgp
from lbnode.config.model import Cluster
from lbnode.haproxy import program
from lbnode.lab import build
from lbnode.lab.errors import LabError
from lbnode.lab.stacks import Stack
from lbnode.lab.stacks.keepalived import HEALTHCHECK, Keepalived
from lbnode.lab.stacks.keepalived_files import FAST, SLOW, exabgp_conf, groups, haproxy_cfg, keepalived_conf
from lbnode.templates import Templates, share

FOLDER = share("lab") / "three-tier"


@pytest.fixture(params=["small", "seed"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return build.load(FOLDER, request.param).cluster


@pytest.fixture
def files() -> Templates:
    return build.templates(FOLDER / "keepalived")


def test_it_is_a_stack() -> None:
    stack: Stack = Keepalived(FAST)
    assert stack.name == "keepalived"
    assert stack.l7_programs()[0] == "haproxy"
    with pytest.raises(LabError, match="it has not been started"):
        stack.l4_out("l4-1")


def test_vips_with_the_same_real_servers_share_a_group(cluster: Cluster) -> None:
    l7 = list(cluster.with_role("l7"))
    found = {group.name: group for group in groups(cluster, l7)}
    names = ["l7-v4-80", "l7-v6-80", "l7-v4-80-sh", "l7-v6-80-sh", "web-direct-v6-80"]
    assert [name for name in found if "echo" not in name] == names
    assert list(map(str, found["l7-v4-80"].vips)) == [f"198.51.100.{last}" for last in (1, 3)]
    assert list(map(str, found["l7-v4-80-sh"].vips)) == ["198.51.100.2"]
    by_udp = {name for name, group in found.items() if group.protocol == "udp"}
    assert by_udp == {f"echo-direct-v{vip.version}-7" for vip in cluster.services["echo"].vips}
    backends = [len(cluster.with_role("backend")), *[len(cluster.members("echo"))] * len(by_udp)]
    assert [len(group.servers) for group in found.values()] == [*[len(l7)] * 4, *backends]
    assert (found["l7-v4-80"].check.port, found["web-direct-v6-80"].check.port) == (5580, 80)


def test_keepalived_has_every_vip_the_flags_and_the_timers(cluster: Cluster, files: Templates) -> None:
    text = keepalived_conf(files, cluster, "l4-1", ["l7-2", "l7-1"], SLOW)
    for service in cluster.services.values():
        (port,) = service.ports
        assert all(re.search(rf"^  {vip} {port}$", text, re.MULTILINE) for vip in service.vips)
    by_udp = len(cluster.services["echo"].vips)
    assert text.count("lvs_sched mh\n") == text.count("mh-port\n") == 3 + by_udp
    assert text.count("lvs_sched sh\n") == text.count("sh-port\n") == 2
    assert text.count("delay_loop 10\n") == text.count("lvs_method TUN\n") == 5 + by_udp
    assert (text.count("protocol TCP\n"), text.count("protocol UDP\n")) == (5, by_udp)
    assert text.count("connect_port 7\n") == by_udp * len(cluster.members("echo"))
    assert "mh-fallback" not in text
    assert "inhibit_on_failure" not in text
    assert re.findall(r"real_server (192\S+) 80", text) == ["192.0.2.152", "192.0.2.151"] * 2


def test_a_service_that_the_stack_lacks_is_refused(cluster: Cluster) -> None:
    service = cluster.services["direct"].model_copy(update={"protocol": "sctp"})
    other = cluster.model_copy(update={"services": {"dns": service}})
    with pytest.raises(LabError, match="cannot serve dns with keepalived"):
        groups(other, ["l7-1"])


def test_haproxy_takes_its_file(cluster: Cluster, files: Templates, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(haproxy_cfg(files, cluster, "l7-1"))
    assert program.check(path) == ""


def test_exabgp_takes_its_file_and_has_one_health_check_per_family(
    cluster: Cluster, files: Templates, tmp_path: Path
) -> None:
    path = tmp_path / "exabgp.conf"
    path.write_text(exabgp_conf(files, cluster, "l4-1", FAST, HEALTHCHECK))
    assert exabgp.check(path) == ""
    assert re.findall(r"^process (\w+)", path.read_text(), re.MULTILINE) == ["ipvs4", "ipvs6"]
    assert path.read_text().count("neighbor ") == len(cluster.bgp.peers)
