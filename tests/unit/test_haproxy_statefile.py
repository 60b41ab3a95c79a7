"""Which servers' states survive a reload: only those whose line still means the same server."""

import pytest

from lbnode.haproxy import statefile

CONFIG = """\
defaults
    default-server inter 2s
backend enabler
    server enabler 127.0.0.1:5555 weight 100 agent-check agent-port 5555 agent-inter 500ms
backend www:servers
    default-server check
    default-server agent-check agent-port 5555
    server app1 [2001:db8::31]:80 id 7 weight 100
    server app2 192.0.2.32:80 id 8 weight 100
frontend www:clients
    bind 198.51.100.1:80
"""

# As HAProxy 2.6.12 prints them.
STATES = """\
2 enabler 1 enabler 127.0.0.1 0 0 100 100 0 1 0 2 0 22 0 0 - 5555 - 0 0 - - 5555
3 www:servers 7 app1 2001:db8::31 2 0 100 100 0 1 0 2 7 22 0 1 - 80 - 0 0 - - 5555
3 www:servers 8 app2 192.0.2.32 0 0 100 100 0 1 0 0 6 22 0 1 - 80 - 0 0 - - 5555
"""
ROWS = [dict(zip(statefile.COLUMNS, line.split(), strict=True)) for line in STATES.splitlines()]


def kept(config: str) -> list[str]:
    lines = statefile.content(ROWS, config).splitlines()
    assert lines[0] == "1"
    assert lines[1].split() == ["#", *statefile.COLUMNS]
    return [line.split()[3] for line in lines[2:]]


def test_unchanged_servers_are_kept_line_by_line() -> None:
    assert kept(CONFIG) == ["enabler", "app1", "app2"]
    assert statefile.content(ROWS, CONFIG).splitlines()[2:] == STATES.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("192.0.2.32:80", "192.0.2.32:81", ["enabler", "app1"]),
        ("192.0.2.32:80", "192.0.2.33:80", ["enabler", "app1"]),
        ("id 8 weight 100", "id 8 weight 100 no-check", ["enabler", "app1"]),
        ("id 8 weight 100", "id 8 weight 100 port 8080", ["enabler", "app1"]),
        ("id 8 weight 100", "id 8 weight 100 ssl", ["enabler", "app1"]),
        ("default-server check\n", "", ["enabler"]),
        ("    default-server agent-check agent-port 5555\n", "", ["enabler"]),
        ("    server app1 [2001:db8::31]:80 id 7 weight 100\n", "", ["enabler", "app2"]),
        ("backend www:servers", "backend web:servers", ["enabler"]),
        ("server app1 [2001:db8::31]", "server app1 [2001:db8:0::31]", ["enabler", "app1", "app2"]),
        ("inter 2s", "inter 3s", ["enabler", "app1", "app2"]),
        ("5555", "5556", ["enabler"]),
    ],
)
def test_a_changed_server_starts_anew(old: str, new: str, left: list[str]) -> None:
    assert old in CONFIG
    assert kept(CONFIG.replace(old, new)) == left


def test_without_an_enabler_in_the_configuration_none_is_kept() -> None:
    assert kept("global\n") == []


def test_the_enablers_state_is_kept_with_its_new_port() -> None:
    line = statefile.content(ROWS, CONFIG.replace("5555", "5556")).splitlines()[2].split()
    told = dict(zip(statefile.COLUMNS, line, strict=True))
    assert (told["srv_op_state"], told["srv_port"], told["srv_agent_port"]) == ("0", "5556", "5556")
