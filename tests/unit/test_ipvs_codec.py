"""What is encoded is decoded to the same value, and looks on the wire as the kernel's header says."""

import socket
import sys
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import LbnodeError, Missing
from lbnode.ipvs import codec
from lbnode.ipvs.codec import Command, Forwarding, Tunnel
from lbnode.ipvs.messages import attribute, attributes
from lbnode.ipvs.netlink import GenericNetlink

ports = st.integers(0, 0xFFFF)
numbers = st.integers(0, 0x7FFFFFFF)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
mapped = st.builds(lambda v4: IPv6Address(b"\0" * 10 + b"\xff\xff" + v4.packed), st.ip_addresses(v=4))


def _family(address: IPv4Address | IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


@st.composite
def services(draw: st.DrawFn) -> codec.Service:
    address = draw(addresses)
    service = codec.Service(
        str(address),
        draw(st.sampled_from([6, 17, 132])),
        draw(ports),
        scheduler=draw(st.sampled_from(["mh", "rr", "wlc", "sh"])),
        flags=draw(st.integers(0, 0xFFFFFFFF)) & ~codec.HASHED,
        timeout=draw(numbers),
        prefix=draw(st.integers(0, address.max_prefixlen - 1)),
        family=_family(address),
    )
    mark = draw(st.integers(0, 0xFFFFFFFF))
    return service._replace(address="", protocol=0, port=0, fwmark=mark) if mark % 4 == 1 else service


destinations = st.builds(
    codec.Destination,
    address=st.one_of(addresses, mapped).map(str),
    port=ports,
    forwarding=st.sampled_from([int(item) for item in Forwarding]),
    weight=numbers,
    upper=numbers,
    lower=numbers,
    tunnel=st.sampled_from([int(item) for item in Tunnel]),
    tunnel_port=ports,
    tunnel_flags=ports,
)


@given(services(), st.sampled_from([Command.NEW_SERVICE, Command.SET_SERVICE]))
def test_a_service_comes_back(service: codec.Service, command: Command) -> None:
    request = codec.service_request(command, service)
    assert request.command == command
    assert codec.decode_service(request.payload) == service


@given(services(), destinations, st.sampled_from([Command.NEW_DEST, Command.SET_DEST]))
def test_a_destination_comes_back(service: codec.Service, destination: codec.Destination, command: Command) -> None:
    request = codec.destination_request(command, service, destination)
    assert request.command == command
    assert codec.decode_destination(request.payload) == destination


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40)))
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    assert attributes(b"".join(attribute(kind, payload) for kind, payload in wanted.items())) == wanted


def test_the_wire_form_of_a_service() -> None:
    service = codec.Service("198.51.100.1", 6, 443, flags=0x1A, timeout=300, prefix=24)
    inside = attributes(attributes(codec.service_request(Command.NEW_SERVICE, service).payload)[1])
    assert inside[3] == bytes([198, 51, 100, 1]) + bytes(12)
    assert inside[4] == b"\x01\xbb"
    assert inside[6] == b"mh\0"
    assert int.from_bytes(inside[7][:4], sys.byteorder) == 0x18
    assert inside[9] == b"\xff\xff\xff\x00"
    assert 5 not in inside


def test_a_delete_names_the_key_alone() -> None:
    service = codec.Service("2001:db8::1", 17, 53, family=socket.AF_INET6)
    destination = codec.Destination("192.0.2.7", 53)
    payload = attributes(codec.destination_request(Command.DEL_DEST, service, destination).payload)
    assert sorted(attributes(payload[1])) == [1, 2, 3, 4]
    assert sorted(attributes(payload[2])) == [1, 2, 11]
    assert sorted(attributes(attributes(codec.service_request(Command.DEL_SERVICE, service).payload)[1])) == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("payload", [b"", attribute(1, b""), attribute(2, attribute(2, b"\0\x50"))])
def test_what_is_no_answer_is_refused_in_words(payload: bytes) -> None:
    with pytest.raises(LbnodeError, match="cannot decode an IPVS service"):
        codec.decode_service(payload)
    with pytest.raises(LbnodeError, match="cannot decode an IPVS destination"):
        codec.decode_destination(payload)


def test_a_torn_attribute_is_refused() -> None:
    with pytest.raises(LbnodeError, match="its length is 40"):
        attributes(b"\x28\x00\x01\x00abcd" if socket.htons(1) != 1 else b"\x00\x28\x00\x01abcd")


def test_a_family_the_kernel_lacks_is_missing() -> None:
    with pytest.raises(Missing, match="cannot use NO-SUCH: the kernel has no such netlink family"):
        GenericNetlink("NO-SUCH")
