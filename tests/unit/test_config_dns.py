"""The section `dns` of a cluster file: what is refused, with its place and how to mend it."""

import pytest
from test_config_structure import GOOD, problems

from lbnode.config.load import parse

DNS = """\
dns:
  zone: example.org
  servers:
    ns1: {ipv4: 192.0.2.10, ipv6: "2001:db8:3::10"}
    ns2: {ipv4: 192.0.2.11}
  names:
    www: {services: [www]}
    "@": {services: [www]}
"""
LABELS = "use labels of lower-case letters, digits and '-', joined by '.'"
NO_NAME = f"cannot be a name in a zone ({LABELS})"


def wrong(old: str, new: str, more: str = "") -> list[str]:
    """Problems with one piece of the section replaced; `more` comes before it. Lines count from the section's first."""
    assert old in DNS
    start = (GOOD + more).count("\n")
    found = problems(GOOD + more + DNS.replace(old, new, 1))
    return [f"{int(line) - start}:{rest}" for line, _, rest in (text.partition(":") for text in found)]


def test_the_section_is_good_and_has_defaults():
    dns = parse(GOOD + DNS).dns
    assert dns is not None
    assert list(dns.names) == ["www", "@"]
    assert (dns.ttl_s, dns.check.interval_s, dns.check.status) == (30, 4, (200,))
    assert [str(address) for address in dns.servers["ns1"].addresses] == ["192.0.2.10", "2001:db8:3::10"]


def test_a_cluster_needs_none():
    assert parse(GOOD).dns is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("example.org", "Example.org", [f"2:9: 'Example.org' cannot be a zone ({LABELS}, such as example.org)"]),
        ("example.org", "org", [f"2:9: 'org' cannot be a zone ({LABELS}, such as example.org)"]),
        ("www: {", "w_w: {", [f"7:5: 'w_w' {NO_NAME}"]),
        ("ns2:", '"@":', [f"5:5: '@' {NO_NAME}"]),
        ("www: {", "ns1: {", ["7:5: 'ns1' is the name of a DNS server (choose another for one of them)"]),
        ("[www]", "[wwv]", ["7:22: there is no service 'wwv' (did you mean 'www'?)"]),
        ("[www]", "[www, www]", ["7:27: service 'www' is listed twice, line 25 (remove one)"]),
        ("[www]", "[]", ["7:21: 'services' is empty (it needs at least one entry)"]),
        ("{ipv4: 192.0.2.11}", "{}", ["5:5: DNS server 'ns2' has no address (give it ipv4 or ipv6)"]),
        ("192.0.2.11", "192.0.2.10", ["5:17: 192.0.2.10 is already the address of DNS server 'ns1', line 22"]),
        (
            "192.0.2.11",
            "127.0.0.1",
            ["5:17: 127.0.0.1 is a loopback address, which cannot be a DNS server's address"],
        ),
        ("192.0.2.11", "ns2", ["5:17: 'ns2' is not an IP address"]),
        ("zone:", "zones:", ["2:3: unknown key 'zones' (did you mean 'zone'?)"]),
        (
            "dns:",
            "dns:\n  check: {interval_s: 2}",
            ["2:23: the timeout of a check, 2 s, is not shorter than its interval, 2 s (a check must have ended when "],
        ),
        ("dns:", "dns:\n  check: {timeout_s: 0}", ["2:22: timeout_s 0 is not between 1 and 255"]),
        ("dns:", "dns:\n  check: {path: x y}", ["2:17: 'x y' is not a path (use an absolute path of URL characters, "]),
    ],
)
def test_a_mistake_is_told_with_its_place(old: str, new: str, expected: list[str]):
    found = wrong(old, new)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True)), found


def test_services_of_a_name_are_checked_in_one_way():
    more = "  tls: {pool: web, mode: tcp, ports: [443], vips: [198.51.100.9]}\n"
    services = GOOD.replace("pools:", more + "pools:")
    found = problems(services + DNS.replace("[www]", "[www, tls]", 1))
    told = "26:27: service 'tls' is at port 443/tcp, but service 'www' at port 80/tcp, line 26"
    assert found == [f"{told} (give each a name of its own)"]
