"""The entry of one flow among the lines of /proc/net/ip_vs_conn."""

import pytest

from lbnode.ipvs.live import Entry, find_entry
from lbnode.resources import ServiceKey

TABLE = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
UDP CB007101 4E20 C6336401 0050 C0000202 0050 UDP             297
TCP CB007101 4E20 C6336401 0050 C0000203 0050 ESTABLISHED     899
TCP CB007101 4E21 C6336401 0050 2001:0db8:0000:0000:0000:0000:0000:0007 0050 SYN_RECV         59
TCP 2001:0db8:0001:0000:0000:0000:0000:0007 9C40 2001:0db8:0005:0000:0000:0000:0000:0001 01BB 2001:0db8:0000:0000:0000:0000:0000:000b 01BB FIN_WAIT        119
""".splitlines()  # noqa: E501 - as the kernel prints them


@pytest.mark.parametrize(
    ("key", "source", "entry"),
    [
        (("198.51.100.1", "tcp", 80), ("203.0.113.1", 20000), Entry("192.0.2.3", 80, "ESTABLISHED", 899)),
        (("198.51.100.1", "udp", 80), ("203.0.113.1", 20000), Entry("192.0.2.2", 80, "UDP", 297)),
        (("198.51.100.1", "tcp", 80), ("203.0.113.1", 20001), Entry("2001:db8::7", 80, "SYN_RECV", 59)),
        (("2001:db8:5::1", "tcp", 443), ("2001:db8:1::7", 40000), Entry("2001:db8::b", 443, "FIN_WAIT", 119)),
        (("198.51.100.1", "tcp", 443), ("203.0.113.1", 20000), None),
        (("198.51.100.1", "sctp", 80), ("203.0.113.1", 20000), None),
        (("198.51.100.1", "tcp", 80), ("203.0.113.2", 20000), None),
    ],
)
def test_the_entry_of_a_flow(key, source, entry):
    assert find_entry(TABLE, ServiceKey(*key), *source) == entry
