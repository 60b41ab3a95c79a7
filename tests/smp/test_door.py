"""What the two-processor kernel is for: it has what user-mode-linux lacks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab.namespaces import Node
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import ServiceKey, VirtualService

pytestmark = pytest.mark.kernel


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("n", private=False) as made:
        yield made


def test_two_processors_are_online() -> None:
    assert Path("/sys/devices/system/cpu/online").read_text() == "0-1\n"
    assert os.cpu_count() == 2


def test_nftables_counts_and_limits(node: Node) -> None:
    rules = """
        table inet lb {
            chain input { type filter hook input priority -200; limit rate 10/second counter accept; }
        }
    """
    node.run(["nft", "-f", "-"], input=rules, check=True)
    assert "limit rate 10/second" in node.run(["nft", "list", "table", "inet", "lb"], check=True).stdout


@pytest.mark.parametrize("scheduler", ["mh", "rr", "wrr", "lc", "wlc", "sh", "dh"])
def test_the_kernel_brings_every_scheduler_in(node: Node, tmp_path: Path, scheduler: str) -> None:
    driver = IpvsDriver(Paths(run=tmp_path))
    flags = ("mh-fallback", "mh-port") if scheduler == "mh" else ()
    service = VirtualService(ServiceKey("198.51.100.1", "tcp", 80), scheduler, flags)
    assert [result.error for result in node.call(lambda: driver.apply([Change(None, service)]))] == [""]
    assert node.call(lambda: driver.observe([service])).rows[0] == service


@pytest.mark.parametrize("version", [4, 6])
def test_packets_in_udp_are_taken_out(node: Node, version: int) -> None:
    """A GUE receiver, for which user-mode-linux has no module."""
    node.run(["ip", f"-{version}", "fou", "add", "port", "6080", "gue"], check=True)
    assert node.run(["ip", f"-{version}", "fou", "show"], check=True).stdout.split() == (
        ["port", "6080", "gue"] if version == 4 else ["port", "6080", "gue", "-6"]
    )


@pytest.mark.parametrize(
    "link",
    ["ipip local 192.0.2.1", "gre local 192.0.2.1", "ip6tnl local 2001:db8::1", "ip6gre local 2001:db8::1", "dummy"],
)
def test_links_of_every_kind_can_be_made(node: Node, link: str) -> None:
    node.run(["ip", "link", "add", "test0", "type", *link.split()], check=True)
