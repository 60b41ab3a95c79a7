"""What `lbnode render ipvsadm` prints, given to the real `ipvsadm --restore`: the table that the driver would make."""

import subprocess
from pathlib import Path

import cluster
import pytest

from lbnode.cli import run
from lbnode.ipvs import ipvsadm
from lbnode.ipvs.driver import IpvsDriver
from lbnode.maintenance.state import READY
from lbnode.node import Identity, desired_state, load_cluster
from lbnode.paths import Paths
from lbnode.plan import TABLE_ROWS, diff
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def restore(text: str) -> None:
    subprocess.run(["ipvsadm", "--restore"], input=text, check=True, text=True)


def saved() -> list[str]:
    return subprocess.run(["ipvsadm", "-Sn"], check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_rendered_table_is_the_desired_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the canonical order is not that of the addresses, and the weights differ."""
    text = cluster.TEXT.replace("ipv4: 192.0.2.193", "weight: 70, ipv4: 192.0.2.199")
    (tmp_path / "cluster.yaml").write_text(text)
    paths = Paths(etc=tmp_path, run=tmp_path / "run")
    assert run(["render", "ipvsadm", "--node", "l4-1", "--etc-dir", str(tmp_path), "--run-dir", str(paths.run)]) == 0
    printed = capsys.readouterr().out
    restore(printed)
    identity = Identity("l4-1", "l4", paths)
    desired = desired_state(identity, load_cluster(identity), READY, {}).rows
    wanted = [row for row in desired if isinstance(row, TABLE_ROWS)]
    observed = IpvsDriver(paths).observe(wanted)
    assert set(observed.rows) == set(wanted)
    assert {row.names for row in observed.rows if isinstance(row, DestinationOrder)} >= {("192.0.2.199", "192.0.2.194")}
    assert observed.foreign == ()
    assert not diff(observed.rows, wanted)
    assert sorted(saved()) == sorted(printed.splitlines())


def test_every_word_is_one_that_ipvsadm_knows(tmp_path: Path) -> None:
    web, sip = ServiceKey("198.51.100.1", "tcp", 80), ServiceKey("198.51.100.1", "sctp", 5060)
    dns = ServiceKey("2001:db8:5::1", "udp", 53)
    wanted: list[Row] = [
        VirtualService(web),
        Destination(web, "192.0.2.3", 0, 100, 1),
        Destination(web, "192.0.2.1", 30, 30, 2, tunnel="gue"),
        Destination(web, "2001:db8::2", 100, 100, 3, tunnel="gre"),
        DestinationOrder(web, ("192.0.2.3", "192.0.2.1", "2001:db8::2")),
        VirtualService(dns, "sh", ("sh-fallback",)),
        Destination(dns, "2001:db8::9", 1, 1, 1, forwarding="route"),
        DestinationOrder(dns, ("2001:db8::9",)),
        VirtualService(sip, "rr", ()),
        Destination(sip, "192.0.2.1", 1, 1, 1, forwarding="masquerade"),
        DestinationOrder(sip, ("192.0.2.1",)),
    ]
    restore(ipvsadm.restore(wanted))
    assert set(IpvsDriver(Paths(run=tmp_path)).observe(wanted).rows) == set(wanted)
