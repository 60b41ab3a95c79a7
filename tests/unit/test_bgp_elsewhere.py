"""What BIRD and FRR say of their sessions, and what status makes of it."""

import pytest

from lbnode.bgp import elsewhere
from lbnode.bgp.report import lines

BIRD = """\
BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     13:25:36.074

edge_v4    BGP        ---        up     13:25:37.122  Established
  BGP state:          Established
    Neighbor address: 192.0.2.254
    Neighbor AS:      65500
    Neighbor ID:      192.0.2.1
  Channel ipv4
    State:          UP
    Table:          master4

spare      BGP        ---        start  13:25:36.074  Active        Socket: Network is unreachable
  BGP state:          Active
    Neighbor address: 2001:db8::77
    Connect delay:    1.722/5
    Last error:       Socket: Network is unreachable

closed     BGP        ---        down   13:25:36.138
  BGP state:          Down
    Neighbor address: 192.0.2.78
"""
FRR = """\
{
"ipv4Unicast":{"routerId":"192.0.2.11","as":65300,"vrfName":"default","peerCount":1,
 "peers":{"rack1":{"remoteAs":65201,"state":"Established","peerState":"OK"}}},
"ipv6Unicast":{"routerId":"192.0.2.11","peers":{"rack1":{"state":"Established"},"192.0.2.9":{"state":"Idle"}}}
}
"""


def test_bird():
    peers = elsewhere.of_bird(BIRD)
    assert {name: (peer["state"], peer["reason"]) for name, peer in peers.items()} == {
        "192.0.2.254": ("up", ""),
        "2001:db8::77": ("down", "Active; Socket: Network is unreachable"),
        "192.0.2.78": ("down", "Down"),
    }


def test_frr():
    peers = elsewhere.of_frr(FRR)
    assert {name: (peer["state"], peer["reason"]) for name, peer in peers.items()} == {
        "rack1": ("up", ""),
        "192.0.2.9": ("down", "Idle"),
    }
    assert elsewhere.of_frr("{}") == elsewhere.of_frr("% BGP instance not found\n") == {}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing on it but what a test puts there: name -> its script."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return put


def test_whoever_answers_is_the_speaker(programs):
    programs("birdc", "exit 1")  # installed, and BIRD does not run
    programs("vtysh", 'echo \'{"ipv4Unicast": {"peers": {"rack1": {"state": "Established"}}}}\'')
    found = {"route_table": 4711, **elsewhere.report(4711)}
    assert elsewhere.line(found) == "bgp: FRR announces what stands in table 4711"
    assert lines(found) == ["peer rack1: up"]


def test_where_nobody_answers_it_is_said_where_to_look(programs):
    found = {"route_table": 4711, **elsewhere.report(4711)}
    assert elsewhere.line(found) == "bgp: BIRD or FRR is to announce what stands in table 4711"
    (said,) = lines(found)
    assert "`birdc show protocols all`" in said
    assert "`vtysh -c show bgp summary json`" in said
