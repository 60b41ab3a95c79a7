"""What the servers' states may survive a reload: the content of HAProxy's server-state-file. PURE.

A new worker starts with every server up and learns better only from its first checks; with this file it starts with
what the old worker knew. But a line of it wins over the configuration: a changed port comes back as the old one
(haproxy issues 1412, 2103, 2506), and a server that was down and is no longer checked stays down for ever. So only
servers whose address, ports and checks are the same in the new configuration are kept. The enabler's always is, with
the new addresses in it: a node that is out of service must not be in service between a reload and the next check.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lbnode.haproxy import configuration
from lbnode.haproxy.configuration import ENABLER, ServerLine, canonical, switched_on, value

COLUMNS = (
    "be_id",
    "be_name",
    "srv_id",
    "srv_name",
    "srv_addr",
    "srv_op_state",
    "srv_admin_state",
    "srv_uweight",
    "srv_iweight",
    "srv_time_since_last_change",
    "srv_check_status",
    "srv_check_result",
    "srv_check_health",
    "srv_check_state",
    "srv_agent_state",
    "bk_f_forced_id",
    "srv_f_forced_id",
    "srv_fqdn",
    "srv_port",
    "srvrecord",
    "srv_use_ssl",
    "srv_check_port",
    "srv_check_addr",
    "srv_agent_addr",
    "srv_agent_port",
)
"""Version 1 of the format, the only one so far (management manual, `show servers state`)."""

_CONFIGURED = 0x02  # CHK_ST_CONFIGURED in srv_check_state and srv_agent_state


@dataclass(frozen=True)
class Written:
    """A `server` line of the configuration: what a state line could override."""

    address: str
    port: str
    checked: bool
    check_port: str
    agent_checked: bool
    agent_port: str
    ssl: bool


def content(states: Iterable[Mapping[str, str]], config_text: str) -> str:
    """The state file for a reload with `config_text`. `states` are the rows of `show servers state`, by column."""
    new = servers(config_text)
    lines = []
    for state in states:
        name = (state["be_name"], state["srv_name"])
        if name not in new:
            continue
        if name == ENABLER:
            lines.append({**state, **_addresses(new[name])})
        elif _running(state) == new[name]:
            lines.append(dict(state))
    table = [" ".join(line.get(column, "-") for column in COLUMNS) for line in lines]
    return "\n".join(["1", "# " + " ".join(COLUMNS), *table]) + "\n"


def servers(config_text: str) -> dict[tuple[str, str], Written]:
    """The `server` lines of a configuration with their `default-server` words, by (backend, server)."""
    return {
        (section.name, line.name): _written(line)
        for section in configuration.sections(config_text)
        for line in section.servers
    }


def _written(line: ServerLine) -> Written:
    words = line.all_words
    return Written(
        address=line.address,
        port=line.port,
        checked=switched_on(words, "check"),
        check_port=value(words, "port") or "0",
        agent_checked=switched_on(words, "agent-check"),
        agent_port=value(words, "agent-port") or "0",
        ssl=switched_on(words, "ssl"),
    )


def _addresses(server: Written) -> dict[str, str]:
    return {"srv_addr": server.address, "srv_port": server.port, "srv_agent_port": server.agent_port}


def _running(state: Mapping[str, str]) -> Written:
    return Written(
        address=canonical(state["srv_addr"]),
        port=state["srv_port"],
        checked=bool(int(state["srv_check_state"]) & _CONFIGURED),
        check_port=state["srv_check_port"],
        agent_checked=bool(int(state["srv_agent_state"]) & _CONFIGURED),
        agent_port=state["srv_agent_port"],
        ssl=state["srv_use_ssl"] == "1",
    )
