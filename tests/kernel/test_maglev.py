"""The Maglev table in Python against the kernel's: every flow goes where it was said to go, whatever came before.

Each scenario makes a service step by step, keeps account of what the kernel does not tell (the last weight above 0),
and sends flows from many sources. What IPVS decided is read back from its connection table.
"""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from lbnode import maglev
from lbnode.ipvs import codec, rows
from lbnode.ipvs.codec import Command
from lbnode.ipvs.netlink import GenericNetlink
from lbnode.maglev import MH_FALLBACK, MH_PORT, Answer, Server
from lbnode.resources import ServiceKey, VirtualService

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

FLOWS = 260
WEB = ServiceKey("198.51.100.1", "udp", 443)
WEB6 = ServiceKey("2001:db8:5::1", "udp", 443)
IP_FREEBIND = 15


@pytest.fixture(autouse=True)
def routes(netns: None) -> None:
    """Where clients' packets come from, where tunnelled ones go: nowhere, but with a route."""
    for command in (
        ["route", "add", "local", "203.0.113.0/24", "dev", "lo"],
        ["-6", "route", "add", "local", "2001:db8:c11e::/48", "dev", "lo"],
        ["address", "add", f"{WEB.vip}/32", "dev", "lo"],
        ["address", "add", f"{WEB6.vip}/128", "dev", "lo", "nodad"],
        ["link", "add", "wire", "type", "dummy"],
        ["link", "set", "wire", "up"],
        ["address", "add", "192.0.2.254/24", "dev", "wire"],
        ["address", "add", "2001:db8::fffe/64", "dev", "wire", "nodad"],
        ["route", "add", "198.18.0.0/15", "dev", "wire"],
    ):
        subprocess.run(["ip", *command], check=True)


@dataclass
class Service:
    """One virtual service, made by hand. `servers` is what its table should be made of, oldest first."""

    link: GenericNetlink
    key: ServiceKey = WEB
    flags: tuple[str, ...] = (MH_FALLBACK, MH_PORT)
    scheduler: str = "mh"
    servers: dict[str, Server] = field(default_factory=dict)

    def begin(self) -> None:
        self._send(codec.service_request(Command.NEW_SERVICE, self._record()))

    def schedule(self, scheduler: str, flags: tuple[str, ...]) -> None:
        self.scheduler, self.flags = scheduler, flags
        self._send(codec.service_request(Command.SET_SERVICE, self._record()))

    def add(self, *servers: tuple[str, int]) -> None:
        for address, weight in servers:
            self._destination(Command.NEW_DEST, address, weight)
            self.servers[address] = Server(address, self.key.port, weight, weight)

    def set(self, address: str, weight: int) -> None:
        self._destination(Command.SET_DEST, address, weight)
        last = weight or self.servers[address].table_weight
        self.servers[address] = Server(address, self.key.port, weight, last)

    def delete(self, address: str) -> None:
        self._destination(Command.DEL_DEST, address, 0)
        del self.servers[address]

    def table(self) -> maglev.Table:
        """What is predicted from; the order and the weights are those that the kernel tells."""
        dump = self.link.dump(codec.destinations_query(rows.record_of_key(self.key)))
        found = [codec.decode_destination(payload) for payload in dump][::-1]
        assert [(item.address, item.weight) for item in found] == [(s.address, s.weight) for s in self.servers.values()]
        version = 6 if ":" in self.key.vip else 4
        return maglev.build(list(self.servers.values()), version, flags=self.flags)

    def _record(self) -> codec.Service:
        flags = self.flags if self.scheduler == "mh" else ()
        return rows.record_of_service(VirtualService(self.key, self.scheduler, flags))

    def _destination(self, command: Command, address: str, weight: int) -> None:
        record = codec.Destination(address, self.key.port, codec.Forwarding.TUNNEL, weight)
        self._send(codec.destination_request(command, rows.record_of_key(self.key), record))

    def _send(self, request: object) -> None:
        assert self.link.exchange([[request]]) == [[0]]


@pytest.fixture
def link(netns: None) -> Iterator[GenericNetlink]:
    with GenericNetlink(codec.FAMILY) as found:
        yield found


def servers(count: int, weight: int = 100) -> list[tuple[str, int]]:
    return [(str(IPv4Address("198.18.0.0") + 37 * number), weight) for number in range(1, count + 1)]


def servers6(count: int, weight: int = 100) -> list[tuple[str, int]]:
    return [(str(IPv6Address("2001:db8::") + 40503 * number), weight) for number in range(1, count + 1)]


def sources(version: int) -> list[tuple[str, int]]:
    """Scattered over addresses and ports; each twice, by address, so that mh-port shows."""
    found = []
    for number in range(FLOWS):
        low = number // 2 * 0x9E3779B97F4A7C15 % 2**80
        address = IPv6Address(IPv6Address("2001:db8:c11e::")._ip + low) if version == 6 else IPv4Address("203.0.113.0")
        if version == 4:
            address += number // 2 % 254 + 1
        found.append((str(address), 1024 + number * 40503 % 64000))
    return found


def send(key: ServiceKey) -> None:
    """One packet of each flow: a datagram, or a SYN."""
    family = socket.AF_INET6 if ":" in key.vip else socket.AF_INET
    kind = socket.SOCK_STREAM if key.protocol == "tcp" else socket.SOCK_DGRAM
    for address, port in sources(6 if ":" in key.vip else 4):
        with socket.socket(family, kind) as client:
            client.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            client.setblocking(False)
            client.bind((address, port))
            client.connect_ex((key.vip, key.port))
            if kind == socket.SOCK_DGRAM:
                with suppress(PermissionError):  # nobody takes it
                    client.send(b"?")


def decided(key: ServiceKey) -> dict[tuple[str, int], str]:
    """Source -> destination, as the connection table of IPVS has it."""

    def address(text: str) -> str:
        return str(ip_address(text if ":" in text else int(text, 16)))

    lines = [line.split() for line in Path("/proc/net/ip_vs_conn").read_text().splitlines()[1:]]
    return {
        (address(words[1]), int(words[2], 16)): address(words[5])
        for words in lines
        if (words[0].lower(), address(words[3]), int(words[4], 16)) == (key.protocol, key.vip, key.port)
    }


def equal(service: Service) -> None:
    service.begin()
    service.add(*servers(10))


def alone(service: Service) -> None:
    service.begin()
    service.add(*servers(1))


def unequal(service: Service) -> None:
    service.begin()
    service.add(*((address, weight) for weight, (address, _) in enumerate(servers(9), start=1)))


def hundreds(service: Service) -> None:
    service.begin()
    service.add(*servers(100))


def four_hundred(service: Service) -> None:
    service.begin()
    service.add(*servers(400))


def odd_weights(service: Service) -> None:
    """The kernel keeps six bits of 1000."""
    service.begin()
    service.add(*zip([address for address, _ in servers(6)], [1000, 999, 7, 1, 500, 65535], strict=True))


def one_less(service: Service) -> None:
    """One weight of 99 gives everybody 50 turns: the first 18 servers get none of the 4093 slots."""
    service.begin()
    service.add(*servers(100))
    service.set(servers(100)[70][0], 99)


def nothing_at_first(service: Service) -> None:
    """A server that is added at 0 has no slots, and gets them with its first weight."""
    service.begin()
    service.add(*servers(4), ("198.18.9.1", 0), ("198.18.9.2", 0))
    service.set("198.18.9.2", 50)


def all_at_zero(service: Service) -> None:
    service.begin()
    service.add(*servers(5, weight=0))


def drained(service: Service) -> None:
    hundreds(service)
    for address, _ in servers(40)[::3]:
        service.set(address, 0)


def drained_to_one(service: Service) -> None:
    equal(service)
    for address, _ in servers(9):
        service.set(address, 0)


def drained_to_none(service: Service) -> None:
    equal(service)
    for address, _ in servers(10):
        service.set(address, 0)


def without_fallback(service: Service) -> None:
    service.flags = (MH_PORT,)
    equal(service)
    for address, _ in servers(4):
        service.set(address, 0)


def without_port(service: Service) -> None:
    service.flags = (MH_FALLBACK,)
    equal(service)
    service.set(servers(3)[2][0], 0)


def fallback_later(service: Service) -> None:
    """Flags are read for each packet."""
    service.flags = ()
    equal(service)
    service.set(servers(7)[6][0], 0)
    service.schedule("mh", (MH_FALLBACK, MH_PORT))


def back_again(service: Service) -> None:
    """Weight 0 and back, and another weight on the way to 0: the last one above 0 counts."""
    equal(service)
    first, second, third = (address for address, _ in servers(3))
    for address, weights in ((first, (0, 100)), (second, (30, 0)), (third, (250,))):
        for weight in weights:
            service.set(address, weight)


def deleted(service: Service) -> None:
    hundreds(service)
    for address, _ in servers(60)[::11]:
        service.delete(address)


def re_added(service: Service) -> None:
    """They stand last now."""
    hundreds(service)
    for address, weight in servers(60)[::11]:
        service.delete(address)
        service.add((address, weight))


def reversed_order(service: Service) -> None:
    service.begin()
    service.add(*servers(50)[::-1])


def from_rr(service: Service) -> None:
    service.scheduler = "rr"
    service.begin()
    service.add(*servers(30))
    service.set(servers(9)[8][0], 0)
    service.schedule("mh", service.flags)


def six(service: Service) -> None:
    service.begin()
    service.add(*servers6(20))


def six_drained(service: Service) -> None:
    six(service)
    for address, _ in servers6(8):
        service.set(address, 0)


def six_with_four(service: Service) -> None:
    service.begin()
    service.add(*servers(12))


def four_with_six(service: Service) -> None:
    """Hashed on their first 32 bits: they all walk the same way through the table."""
    six(service)


def mixed(service: Service) -> None:
    service.begin()
    service.add(*servers(5), *servers6(5))
    service.set(servers6(1)[0][0], 0)
    service.delete(servers(2)[1][0])


TCP, TCP6 = WEB._replace(protocol="tcp"), WEB6._replace(protocol="tcp")
SCENARIOS: list[tuple[ServiceKey, Callable[[Service], None]]] = [
    *((WEB, make) for make in (equal, alone, unequal, hundreds, four_hundred, odd_weights, one_less)),
    *((WEB, make) for make in (nothing_at_first, all_at_zero, drained, drained_to_one, drained_to_none)),
    *((WEB, make) for make in (without_fallback, without_port, fallback_later, back_again)),
    *((WEB, make) for make in (deleted, re_added, reversed_order, from_rr, four_with_six, mixed)),
    *((WEB6, make) for make in (six, six_drained, six_with_four, mixed)),
    *((TCP, make) for make in (unequal, drained, without_fallback)),
    *((TCP6, make) for make in (six_drained, mixed)),
]


def test_there_is_enough_of_it() -> None:
    assert len(SCENARIOS) >= 20
    assert len(SCENARIOS) * FLOWS >= 5000


@pytest.mark.parametrize(
    ("key", "make"),
    SCENARIOS,
    ids=[f"{make.__name__}-{key.protocol}{'6' * (':' in key.vip)}" for key, make in SCENARIOS],
)
def test_every_flow_goes_where_it_was_said_to_go(
    link: GenericNetlink, key: ServiceKey, make: Callable[[Service], None]
) -> None:
    service = Service(link, key)
    make(service)
    table = service.table()
    flows = sources(table.version)
    said: dict[tuple[str, int], Answer] = {flow: maglev.lookup(table, *flow) for flow in flows}
    assert len(said) == FLOWS
    send(key)
    assert decided(key) == {flow: answer.server.address for flow, answer in said.items() if answer.server}
