import socket

import pytest

from lbnode.lab import ecmp, links
from lbnode.lab.errors import LabError
from lbnode.lab.links import Route


@pytest.mark.parametrize("name", ["", "a" * 16, "eth 0", "eth/0"])
def test_names_the_kernel_refuses_are_refused_by_name(name):
    with pytest.raises(LabError, match="1 to 15 characters"):
        links.checked(name)


def test_one_next_hop_is_a_gateway_and_several_are_multipath():
    one = links.request(Route("203.0.113.0/24", ("192.0.2.1",)), lambda name: 7)
    assert one == {"family": socket.AF_INET, "dst": "203.0.113.0/24", "table": 254, "gateway": "192.0.2.1"}
    two = links.request(Route("2001:db8::/32", ("2001:db8::1", "2001:db8::2"), source="2001:db8::9"), lambda name: 7)
    assert two["family"] == socket.AF_INET6
    assert two["multipath"] == [{"gateway": "2001:db8::1"}, {"gateway": "2001:db8::2"}]
    assert two["prefsrc"] == "2001:db8::9"


def test_a_device_route_names_the_interface():
    assert links.request(Route("203.0.113.1/32", device="eth0"), {"eth0": 7}.__getitem__)["oif"] == 7


def test_the_bpf_program_is_three_instructions():
    assert len(ecmp.REHASH.text) == 3 * 8
