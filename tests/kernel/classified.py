"""The classifier with what it knows, in this kernel but on no device: packets are put to it by BPF_PROG_TEST_RUN."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tunnelled import Flow, outer

from lbnode.chance import bpf, layout, program
from lbnode.chance.driver import entry_of
from lbnode.chance.generations import Generation
from lbnode.maglev import Server, build
from lbnode.resources import ChanceEndpoint, ChanceOwn, ChancePeer, ServiceKey

GO_ON, REDIRECTED = -1, 7  # TC_ACT_UNSPEC, TC_ACT_REDIRECT
VIP = {4: "198.51.100.1", 6: "2001:db8:5::1"}
L4 = {4: "192.0.2.250", 6: "2001:db8::250"}
STRANGER = {4: "203.0.113.66", 6: "2001:db8:9::66"}


def server(number: int, version: int) -> str:
    return f"192.0.2.{number}" if version == 4 else f"2001:db8::{number}"


ME = {version: server(1, version) for version in (4, 6)}


def generation(
    version: int, numbers: Sequence[int], down: Sequence[int] = (), weights: Sequence[int] = ()
) -> Generation:
    """`down` are places among `numbers`."""
    some = [
        Server(server(number, version), 80, weight, weight)
        for number, weight in zip(numbers, weights or [100] * len(numbers), strict=True)
    ]
    return Generation(build(some, 6 if version == 6 else 4), tuple(down))


@dataclass(frozen=True)
class Answer:
    """`to`: where it was sent on, with the TTL; None: it stays."""

    to: tuple[str, int] | None
    reason: str


class Classified:
    """`maps` by name, `program`: descriptors."""

    def __init__(self, loaded: int, maps: dict[str, int]) -> None:
        self.program, self.maps = loaded, maps

    def learn(self, generations: Sequence[Generation], version: int, failed: Sequence[str] = ()) -> None:
        """Sets the table of the VIP of a family."""
        table = bpf.create("table", program.built()[0].maps["table"])
        bpf.write_array(table, layout.pack(generations, failed), layout.ROW)
        bpf.update(self.maps["groups"], (version % 4 // 2).to_bytes(4, "little"), table.to_bytes(4, "little"))
        os.close(table)

    def put(self, row: ChanceEndpoint | ChancePeer | ChanceOwn) -> None:
        entry = entry_of(row)
        bpf.update(self.maps[entry.map], entry.key, entry.value)

    def counters(self) -> dict[str, int]:
        return program.read_counters(self.maps["counters"])

    def ask(self, packet: bytes) -> Answer:
        """What becomes of a packet, and by which counter."""
        before = self.counters()
        found = bpf.run(self.program, packet)
        after = self.counters()
        reasons = [name for name in after for _ in range(after[name] - before[name])]
        assert len(reasons) <= 1
        assert found.answer in (GO_ON, REDIRECTED)
        if found.answer == GO_ON:
            assert found.data == packet
            return Answer(None, "".join(reasons))
        source, target, ttl = outer(found.data)
        assert source == outer(packet)[1]
        return Answer((target, ttl), "".join(reasons))


@contextmanager
def classified() -> Iterator[Classified]:
    """With one VIP of each family, port 80; the nodes are server 1, its peers 2 to 199, and one L4 node."""
    loaded, maps = program.load_only()
    made = Classified(loaded, maps)
    try:
        for version, number in ((4, 0), (6, 1)):
            made.put(ChanceEndpoint(ServiceKey(VIP[version], "tcp", 80), number))
            made.put(ChancePeer(L4[version], "l4"))
            made.put(ChanceOwn(6 if version == 6 else 4, ME[version]))
            for other in range(2, 200):
                made.put(ChancePeer(server(other, version), "real-server"))
        yield made
    finally:
        for descriptor in (loaded, *maps.values()):
            os.close(descriptor)


def flow(version: int, port: int = 40000, client: int = 7) -> Flow:
    source = f"203.0.113.{client}" if version == 4 else f"2001:db8:9::{client:x}"
    return Flow(L4[version], ME[version], VIP[version], source, port)
