"""Wrong keys, wrong values and wrong YAML: each with its place, in plain words, once."""

import pytest

from lbnode.config.load import parse
from lbnode.config.model import Check, Pool
from lbnode.errors import ConfigError

CHECK, POOL = ", ".join(Check.model_fields), ", ".join(Pool.model_fields)

GOOD = """\
bgp:
  local_asn: 64501
  peers:
    r1: {address: 192.0.2.129, asn: 64500}
    r1-v6: {address: 2001:db8:1::129, asn: 64500}
nodes:
  l4-1: {role: l4, ipv4: 192.0.2.141, ipv6: 2001:db8:1::141}
  l4-2: {role: l4, ipv4: 192.0.2.142, ipv6: 2001:db8:1::142}
  l7-1: {role: l7, ipv4: 192.0.2.151, ipv6: 2001:db8:1::151}
  s1: {role: backend, ipv6: 2001:db8:1::171}
  s2: {role: backend, ipv6: 2001:db8:1::172}
services:
  www:
    vips: [198.51.100.1, 2001:db8:2::1]
    pool: web
pools:
  web:
    check: {path: /health}
"""


NAME_RULE = "use 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit"
DECIMAL = "use decimal digits, without a leading 0"
TAB = "found character that cannot start any token while scanning for the next token"
EXAMPLE = "the reference of the cluster file has an example"


def problems(text: str) -> list[str]:
    """Each as `line:column: message (hint)`."""
    try:
        parse(text)
    except ConfigError as error:
        return [str(problem).removeprefix("cluster.yaml:") for problem in error.problems]
    return []


def changed(*pairs: tuple[str, str]) -> str:
    text = GOOD
    for old, new in pairs:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


def test_the_good_file_is_good():
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # Keys.
        ("r1: {address", "r1: {adress", "4:10: unknown key 'adress' (did you mean 'address'?)"),
        ("pools:", "pool:", "16:1: unknown key 'pool' (did you mean 'pools'?)"),
        (
            "{path:",
            "{zzz:",
            f"18:13: unknown key 'zzz' (known here: {CHECK})",
        ),
        ("l4-2:", "l4-1:", "8:3: node 'l4-1' is named twice; first at line 7"),
        ("r1-v6:", "r1:", "5:5: BGP peer 'r1' is named twice; first at line 4"),
        ("    pool: web", "    pool: web\n    pool: shop", "16:5: 'pool' is written twice; first at line 15"),
        ("pools:", "nodes: {}\npools:", "16:1: 'nodes' is written twice; first at line 6"),
        (
            ", asn: 64500}",
            "}",
            "4:5: BGP peer 'r1' lacks 'asn' (asn: The peer's autonomous system; the own one makes it an iBGP peer)",
        ),
        ("role: backend, ", "", "10:3: node 's1' lacks 'role' (role: What the machine does: l4, l7 or backend)"),
        ("    pool: web\n", "", "13:3: service 'www' lacks 'pool' (pool: The pool that serves it)"),
        (
            "  local_asn: 64501\n",
            "",
            "1:1: 'bgp' lacks 'local_asn' (local_asn: The autonomous system of the nodes that announce)",
        ),
        (
            "l7-1:",
            "'l7 1':",
            f"9:3: 'l7 1' cannot be a name ({NAME_RULE})",
        ),
        # Values.
        ("role: l4", "role: 14", "7:16: role '14' is not one of l4, l7, backend"),
        ("role: l4", "role: router", "7:16: role 'router' is not one of l4, l7, backend"),
        (
            "role: backend",
            "role: bakend",
            "10:14: role 'bakend' is not one of l4, l7, backend (did you mean 'backend'?)",
        ),
        ("pool: web", "pool: web\n    ports: [80, 99999]", "16:17: port 99999 is not between 1 and 65535"),
        (
            "pool: web",
            "pool: web\n    ports: [http]",
            f"16:13: port 'http' is not a whole number ({DECIMAL})",
        ),
        ("pool: web", "pool: web\n    ports: 80", "16:12: 'ports' must be a list, not '80' (write [80])"),
        ("pool: web", "pool: web\n    ports: []", "16:12: 'ports' is empty (it needs at least one entry)"),
        ("pool: web", "pool: [web]", "15:11: 'pool' must be a single value, not a list"),
        ("64501", "4294967296", "2:14: local_asn 4294967296 is not between 1 and 4294967295"),
        (
            "64501",
            "1:20",
            f"2:14: local_asn '1:20' is not a whole number ({DECIMAL})",
        ),
        (
            "64501",
            "010",
            f"2:14: local_asn '010' is not a whole number ({DECIMAL})",
        ),
        ("64501", "", "2:13: 'local_asn' has no value (write one, or leave the key out)"),
        (
            "/health}",
            "health}",
            "18:19: 'health' is not a path (use an absolute path of URL characters, such as /health)",
        ),
        ("/health}", "/h, interval_s: 0}", "18:35: interval_s 0 is not between 0.01 and 86400"),
        ("/health}", "/h, interval_s: 1s}", "18:35: interval_s '1s' is not a number (write it as 2 or 0.5)"),
        (
            "{path: /health}",
            "http",
            f"18:12: 'check' must be a mapping, not 'http' (its keys: {CHECK})",
        ),
        ("check: {path: /health}", "agent_check: 2", "18:18: '2' is neither true nor false"),
        ("    check: {path: /health}\n", "", "17:7: pool 'web' has no value (write one, or leave the key out)"),
        (
            "\n    check: {path: /health}",
            " [s1]",
            f"17:8: pool 'web' must be a mapping, not a list (its keys: {POOL})",
        ),
        # Addresses.
        ("192.0.2.141", "203.0.113", "7:26: '203.0.113' is not an IP address"),
        ("192.0.2.141", "192.0.2.141/24", "7:26: '192.0.2.141/24' is not an IP address (write 192.0.2.141)"),
        ("192.0.2.141", "3221225997", "7:26: '3221225997' is not an IP address"),
        (
            "192.0.2.141",
            "2001:db8:1::9",
            "7:26: '2001:db8:1::9' is an IPv6 address, not an IPv4 one (write it as ipv6)",
        ),
        (
            "ipv6: 2001:db8:1::141",
            "ipv6: 192.0.2.9",
            "7:45: '192.0.2.9' is an IPv4 address, not an IPv6 one (write it as ipv4)",
        ),
        ("192.0.2.129", "router-1", "4:19: 'router-1' is not an IP address"),
        (
            "198.51.100.1",
            "'2001:db8:2::2%eth0'",
            "14:12: '2001:db8:2::2%eth0' names an interface (write the address alone, without '%')",
        ),
        ("192.0.2.129", "{v4: 192.0.2.129}", "4:19: 'address' must be a single value, not a mapping"),
        # What this reader of YAML does not read.
        ("192.0.2.141", "&x 192.0.2.141", None),
        ("64501", "!!int 64501", "2:14: the tag !!int has no meaning here (remove it)"),
        ("role: l4, ", "<<: {weight: 5}, role: l4, ", "7:10: merge keys (<<) are not read (write the keys out)"),
        ("role: l4, ", "[a, b]: c, role: l4, ", "7:10: a key must be plain text"),
        ("pools:", "---\npools:", "16:1: a second document begins here (one file, one cluster: remove '---')"),
    ],
)
def test_one_mistake_one_problem(old: str, new: str, expected: str | None):
    assert problems(changed((old, new))) == ([expected] if expected else [])


def test_an_alias_is_refused_where_it_stands_and_nothing_follows_from_it():
    text = changed(("l4-1: {", "l4-1: &node {"), ("{role: l4, ipv4: 192.0.2.142, ipv6: 2001:db8:1::142}", "*node"))
    assert problems(text) == ["8:9: the alias *node is not read (write the value out)"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"1:1: the file is empty ({EXAMPLE})"),
        ("# nothing yet\n", f"1:1: the file is empty ({EXAMPLE})"),
        (
            "- a\n",
            f"1:1: the file must be a mapping with the keys bgp and nodes ({EXAMPLE})",
        ),
        ("bgp: {\n", "1:7: not valid YAML: did not find expected node content while parsing a flow node"),
        (
            "bgp:\n\tlocal_asn: 1\n",
            f"2:1: not valid YAML: {TAB} (indent with blanks, not tabs)",
        ),
        (
            "bgp: 'x\n\n",
            "2:1: not valid YAML: found unexpected end of stream while scanning a quoted scalar that begins at line 1",
        ),
        ("a: é\x01\n", "1:5: not valid YAML: control characters are not allowed (remove the character)"),
        ("a: \ud800\n", "1:4: not valid YAML: this character is not Unicode text"),
        ("a: *b\n", None),
        ("a: " + "[" * 50_000, "1:23: nested too deeply (check the brackets)"),
    ],
)
def test_text_that_is_no_cluster_file(text: str, expected: str | None):
    if expected is not None:
        assert problems(text) == [expected]


@pytest.mark.parametrize("value", ["[2001:db8:2::, ::1]", "{ipv6: 2001:db8::, a: b}"])
def test_a_bare_address_that_yaml_misreads_gets_a_hint(value: str):
    (problem,) = problems(changed(("[198.51.100.1, 2001:db8:2::1]", value)))
    assert problem.startswith("14:")
    assert problem.endswith("(put quotes around an IPv6 address that begins or ends with '::')")


def test_names_that_yaml_1_1_would_turn_into_something_else_stay_names():
    text = changed(("s1:", "no:"), ("s2:", "1e3:"), ("check: {path: /health}", "nodes: [no, 1e3]"))
    assert list(parse(text).members("web")) == ["no", "1e3"]


def test_flags_and_numbers_may_be_quoted():
    text = changed(("64501", "'64501'"), ("check: {path: /health}", "agent_check: off"))
    cluster = parse(text)
    assert cluster.bgp.local_asn == 64501
    assert cluster.pools["web"].agent_check is False


def test_a_missing_key_is_not_reported_beside_its_misspelling():
    assert problems(changed(("role: l4", "rolle: l4"))) == ["7:10: unknown key 'rolle' (did you mean 'role'?)"]


def test_missing_top_level_keys():
    assert problems("services: {}\n") == [
        "1:1: the file lacks 'bgp' (bgp: How VIPs are announced)",
        "1:1: the file lacks 'nodes' (nodes: Every machine, by host name; append new ones, for their order counts)",
    ]


def test_long_values_are_shortened():
    (problem,) = problems(changed(("role: l4", f"role: {'x' * 10_000}")))
    assert len(problem) < 150
