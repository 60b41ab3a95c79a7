"""A table in the words of ipvsadm; tests/kernel/test_ipvsadm.py gives them to the real one."""

import pytest

from lbnode.errors import LbnodeError
from lbnode.ipvs import ipvsadm
from lbnode.resources import Destination, DestinationOrder, ServiceKey, Sysctl, VirtualService

WEB = ServiceKey("198.51.100.1", "tcp", 80)
DNS = ServiceKey("2001:db8:5::1", "udp", 53)


def test_destinations_stand_in_the_order_in_which_they_are_added() -> None:
    rows = [
        Destination(WEB, "192.0.2.1", 100, 100, serial=2),
        Sysctl("net.ipv4.ip_forward", "1"),
        DestinationOrder(WEB, ("192.0.2.9", "192.0.2.1")),
        Destination(WEB, "192.0.2.9", 50, 50, serial=1),
        VirtualService(WEB),
    ]
    text = ipvsadm.restore(rows)
    assert text.splitlines() == [
        "-A -t 198.51.100.1:80 -s mh -b mh-fallback,mh-port",
        "-a -t 198.51.100.1:80 -r 192.0.2.9:80 -i -w 50 --tun-type ipip",
        "-a -t 198.51.100.1:80 -r 192.0.2.1:80 -i -w 100 --tun-type ipip",
    ]
    assert ipvsadm.restore(rows[::-1]) == text


def test_a_row_at_weight_0_takes_its_slots_first() -> None:
    rows = [VirtualService(WEB), Destination(WEB, "192.0.2.9", 0, 70)]
    assert ipvsadm.restore(rows).splitlines()[1:] == [
        "-a -t 198.51.100.1:80 -r 192.0.2.9:80 -i -w 70 --tun-type ipip",
        "-e -t 198.51.100.1:80 -r 192.0.2.9:80 -i -w 0 --tun-type ipip",
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tunnel": "gue", "tunnel_port": 6080}, ":53 -i -w 5 --tun-type gue --tun-port 6080 --tun-nocsum"),
        (
            {"tunnel": "gue", "tunnel_port": 7, "tunnel_checksum": "remote"},
            ":53 -i -w 5 --tun-type gue --tun-port 7 --tun-remcsum",
        ),
        ({"tunnel": "gre", "tunnel_checksum": "full"}, ":53 -i -w 5 --tun-type gre --tun-csum"),
        ({"upper": 1000, "lower": 800}, ":53 -i -w 5 -x 1000 -y 800 --tun-type ipip"),
        ({"forwarding": "route"}, ":53 -g -w 5"),
        ({"forwarding": "masquerade", "port": 8053}, ":8053 -m -w 5"),
    ],
)
def test_every_way_to_forward_has_a_word(settings: dict[str, str], words: str) -> None:
    rows = [VirtualService(DNS, "rr", ()), Destination(DNS, "2001:db8::7", 5, **settings)]
    assert ipvsadm.restore(rows).splitlines() == [
        "-A -u [2001:db8:5::1]:53 -s rr",
        f"-a -u [2001:db8:5::1]:53 -r [2001:db8::7]{words}",
    ]


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (
            VirtualService(WEB, "mh", ("mh-port", "persistent"), 300, 24),
            "-t 198.51.100.1:80 -s mh -p 300 -M 255.255.255.0 -b mh-port",
        ),
        (VirtualService(DNS, "wlc", ("persistent",), 60, 64), "-u [2001:db8:5::1]:53 -s wlc -p 60 -M 64"),
        (VirtualService(DNS, "rr", ("one-packet",)), "-u [2001:db8:5::1]:53 -s rr -o"),
        (
            VirtualService(ServiceKey.of_mark(7, 4), "sh", ("sh-fallback", "sh-port")),
            "-f 7 -s sh -b sh-fallback,sh-port",
        ),
        (VirtualService(ServiceKey.of_mark(2**32 - 1, 6), "rr", ()), "-f 4294967295 -6 -s rr"),
    ],
)
def test_every_service_has_words(service: VirtualService, words: str) -> None:
    assert ipvsadm.restore([service]) == f"-A {words}\n"


def test_a_destination_of_a_mark_keeps_the_packets_port() -> None:
    row = Destination(ServiceKey.of_mark(7, 6), "2001:db8::7", 0, 3)
    assert ipvsadm.restore([VirtualService(row.service, "rr", ()), row]).splitlines()[1:] == [
        "-a -f 7 -6 -r [2001:db8::7]:0 -i -w 3 --tun-type ipip",
        "-e -f 7 -6 -r [2001:db8::7]:0 -i -w 0 --tun-type ipip",
    ]


@pytest.mark.parametrize("flag", ["one-packet", "0x40"])
def test_a_flag_without_a_word_is_refused(flag: str) -> None:
    with pytest.raises(LbnodeError, match=rf"cannot print 198.51.100.1:80/tcp for ipvsadm: flag '{flag}'"):
        ipvsadm.restore([VirtualService(WEB, "mh", ("mh-port", flag))])


def test_no_services_are_no_lines() -> None:
    assert ipvsadm.restore([Destination(WEB, "192.0.2.1", 1)]) == ""
