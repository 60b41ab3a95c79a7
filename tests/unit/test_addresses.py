"""Reading the kernel's list of addresses: what happens when it changes meanwhile, and when it is refused."""

import errno
import socket
from collections.abc import Iterator

import pytest

from lbnode.net import rtnetlink
from lbnode.net.addresses import RTM_NEWADDR, Assigned, assigned

NEW, DONE, ERROR = RTM_NEWADDR, rtnetlink.NLMSG_DONE, rtnetlink.NLMSG_ERROR
# As `ip address add 10.0.0.1 peer 10.0.0.2/32 dev lb-vip` is reported (interface 7): IFA_ADDRESS is the peer.
PEER = bytes.fromhex("02200000 07000000 0800 0100 0a000002 0800 0200 0a000001 0b00 0300 6c622d76697000 00")
SITE = bytes.fromhex("0a800000 07000000 1400 0100 20010db8000000000000000000000001 0800 0800 80000000")
LINK_LOCAL = bytes.fromhex("0a4000fd 07000000 1400 0100 fe800000000000000000000000000001")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, ours:
        ours.settimeout(5)
        yield kernel, ours


def message(kind: int, payload: bytes, flags: int = 2, number: int = 1) -> bytes:
    return rtnetlink.HEADER.pack(rtnetlink.HEADER.size + len(payload), kind, flags, number, 0) + payload


def test_addresses_are_read_over_several_datagrams(ends: tuple[socket.socket, socket.socket]) -> None:
    kernel, ours = ends
    kernel.send(message(NEW, PEER) + message(NEW, SITE))
    kernel.send(message(NEW, PEER, number=99))  # the rest of an older answer
    kernel.send(message(NEW, LINK_LOCAL) + message(DONE, bytes(4)))
    found, whole = rtnetlink.collect(ours, 1, NEW)
    assert whole
    assert [assigned(payload) for payload in found] == [
        Assigned(7, "10.0.0.1", 32, 0),
        Assigned(7, "2001:db8::1", 128, 0),
        Assigned(7, "fe80::1", 64, 253),
    ]
    assert [assigned(payload).is_host for payload in found] == [True, True, False]


def test_a_list_that_changed_while_it_was_read_is_not_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    kernel, ours = ends
    kernel.send(message(NEW, PEER) + message(NEW, SITE, flags=2 | rtnetlink.NLM_F_DUMP_INTR) + message(DONE, bytes(4)))
    assert rtnetlink.collect(ours, 1, NEW)[1] is False


def test_a_refused_request_is_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    kernel, ours = ends
    kernel.send(message(ERROR, (-errno.EPERM).to_bytes(4, "little", signed=True) + bytes(16)))
    with pytest.raises(PermissionError):
        rtnetlink.collect(ours, 1, NEW)


@pytest.mark.parametrize(
    ("one", "is_host"),
    [
        (Assigned(7, "10.0.0.1", 24, 0), False),
        (Assigned(7, "10.0.0.1", 32, 254), False),
        (Assigned(7, "2001:db8::1", 32, 0), False),
    ],
)
def test_only_global_host_addresses_look_like_a_vip(one: Assigned, is_host: bool) -> None:
    assert one.is_host == is_host
