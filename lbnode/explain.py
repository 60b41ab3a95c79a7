"""Where one flow goes, and why: by the cluster file, and by the tables of live L4 nodes beside it. PURE.

ECMP may bring a flow to any L4 node that announces its VIP, and may move it to another one later. So what matters is
not what one node does with it but whether all of them do the same. A live node's table is the JSON of
`lbnode.agent.tables`; an answer is a value for JSON, and `lines` puts it into words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lbnode import impact, maglev
from lbnode.chance.generations import Past
from lbnode.chance.layout import candidates
from lbnode.config.model import Cluster
from lbnode.maglev import Server, Table
from lbnode.resources import Destination, DestinationOrder, PacketMark, Row, ServiceKey, VirtualService
from lbnode.roles.second_chance import covered

NOTHING = Past()
Endpoint = tuple[str, int]
Value = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A flow from `source` to the VIP, protocol and port of `key`. `served` is the virtual service that takes it, which
    is another one where firewall marks are used; `wanted` are its rows."""

    cluster: Cluster
    source: Endpoint
    key: ServiceKey
    served: ServiceKey
    wanted: tuple[Row, ...]

    def __str__(self) -> str:
        address, port = self.source
        return f"{f'[{address}]' if ':' in address else address}:{port} -> {self.key}"


def table_key(rows: Iterable[Row], key: ServiceKey) -> ServiceKey | None:
    """The virtual service that takes packets to this VIP, protocol and port: itself, or one by firewall mark. None when
    there is none."""
    for row in rows:
        if isinstance(row, VirtualService) and row.service == key:
            return key
        if isinstance(row, PacketMark) and row.service == key:
            return ServiceKey.of_mark(row.mark, impact.family(key))
    return None


def explanation(asked: Question, live: Mapping[str, Mapping[str, Any]] | None, past: Past = NOTHING) -> Value:
    """The whole answer; `live` is what L4 nodes say (see `by_node`), by name, None if none was asked; `past` is what
    this node remembers."""
    return {
        "flow": str(asked),
        "l4": list(asked.cluster.with_role("l4")),
        "file": by_file(asked),
        "live": None if live is None else {name: by_node(asked, told) for name, told in live.items()},
        "second_chance": chances(asked, past),
    }


def chances(asked: Question, past: Past) -> list[Value]:
    """Where the flow may live, the likeliest first, and since or until when a table says so (seconds since 1970): the
    real servers that a packet is sent on to when one that it comes to does not know the flow. Two of them at most are
    tried after the first. Nothing where this node remembers no tables, or the service has no second chance."""
    records = past.records.get(str(asked.served), ())
    if not asked.cluster.second_chance.enabled or not any(_is_covered(asked, one) for one in asked.cluster.balanced):
        return []
    by_generation = {record.generation: record for record in records}
    found = candidates(by_generation, past.failed, *asked.source)
    return [
        {
            "server": _server(asked.cluster, address),
            "table": maglev.fingerprint(generation.table),
            "in_use": by_generation[generation].in_use,
            "at": by_generation[generation].at,
        }
        for address, generation in found
    ]


def _is_covered(asked: Question, name: str) -> bool:
    service = asked.cluster.services[name]
    here = any(str(vip) == asked.key.vip for vip in service.vips) and asked.key.port in service.ports
    return here and covered(service)


def by_file(asked: Question) -> Value:
    """What every L4 node does with a new flow when all real servers are up."""
    service = _service(asked.wanted)
    tables = impact.tables(asked.wanted)
    found = _answer(asked, tables[asked.served]) if asked.served in tables else {}
    return {"scheduler": service.scheduler, "persistent": "persistent" in service.flags, **found}


def by_node(asked: Question, told: Mapping[str, Any]) -> Value:
    """What one live node does. `told` is what it says: the JSON of `lbnode.agent.tables`, and perhaps an `entry` (a
    `lbnode.ipvs.live.Entry`); `announced` is None where that is not known; or {"error": why it says nothing}."""
    if "error" in told:
        return {"error": told["error"]}
    announced = told["announced"]
    found: Value = {"announced": None if announced is None else asked.key.vip in announced}
    table = told["tables"].get(str(asked.served))
    if table is None:
        return found | {"service": False}
    entry = told.get("entry")
    found |= {
        "service": True,
        "scheduler": table["scheduler"],
        "entry": entry and {**asdict(entry), "server": _server(asked.cluster, entry.address)},
        "differences": differences(table, asked.wanted),
    }
    if table["scheduler"] == impact.SCHEDULER:
        servers = [Server(**row) for row in table["rows"]]
        found |= _answer(asked, maglev.build(servers, impact.family(asked.key), table["size"], table["flags"]))
    return found


def _answer(asked: Question, table: Table) -> Value:
    """Which server, and why that one."""
    found = maglev.lookup(table, *asked.source)
    holder = table.servers[table.slots[found.slot]].address if table.slots else ""
    return {
        "server": found.server and _server(asked.cluster, found.server.address),
        "slot": found.slot,
        "slots": table.size,
        "fallback": found.fallback,
        "holder": _server(asked.cluster, holder) if holder else None,
        "table": maglev.fingerprint(table),
    }


def differences(table: Mapping[str, Any], wanted: Sequence[Row]) -> list[str]:
    """How a live table is another than the wanted one, a line each; in the order of the wanted rows."""
    lines = []
    service = _service(wanted)
    order = next((row.names for row in wanted if isinstance(row, DestinationOrder)), ())
    live = {_name(service.service, row): row for row in table["rows"]}
    for word, found, meant in (
        ("scheduler", table["scheduler"], service.scheduler),
        ("flags", ",".join(table["flags"]), ",".join(service.flags)),
    ):
        if found != meant:
            lines.append(f"{word} {found or 'none'}, not {meant or 'none'}")
    rows = [row for row in wanted if isinstance(row, Destination)]
    for row in rows:
        if row.name not in live:
            lines.append(f"{row.name} is not there")
        elif live[row.name]["weight"] != row.weight:
            lines.append(f"{row.name} has weight {live[row.name]['weight']}, not {row.weight}")
    known = {row.name for row in rows}
    lines += [f"{name} does not belong there" for name in live if name not in known]
    if [name for name in live if name in known] != [name for name in order if name in live]:
        lines.append(f"another order: {' '.join(live)}")
    return lines


def lines(found: Value) -> list[str]:
    """The whole explanation, for people."""
    text = [found["flow"], f"by the file: {_way(found['file'])}"]
    if found["file"]["persistent"]:
        text.append("with persistence: a client goes where its last flow went, while that is remembered")
    live = found["live"]
    if live is None:
        text.append(f"the same on every L4 node while all servers are up: {', '.join(found['l4'])}")
        return text + _second_chance(found["second_chance"])
    for name, node in live.items():
        text += _node(name, node, found["file"])
    return text + list(_together(live)) + _second_chance(found["second_chance"])


def _second_chance(found: Sequence[Value]) -> list[str]:
    """One line for each real server that the flow may be sent on to."""
    if not found:
        return []
    lines = ["second chance: a real server that it comes to and that has no socket for it sends it on, to"]
    for chance in found:
        when = "in use" if chance["in_use"] else f"until {_moment(chance['at'])}"
        lines.append(f"  {_named(chance['server'])}, by table {chance['table']}, {when}")
    return lines


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _node(name: str, node: Value, file: Value) -> list[str]:
    if "error" in node:
        return [f"{name}: no answer: {node['error']}"]
    away = "" if node["announced"] is not False else "; the VIP is withdrawn there"
    if not node["service"]:
        return [f"{name}: there is no such virtual service{away}"]
    text = []
    if entry := node["entry"]:
        why = f"by its entry, {entry['state']}, {entry['expires_s']} s left"
        text.append(f"{name}: {_named(entry['server'])}, {why}")
    differs = "; not as the file" if "slot" in node and node["server"] != file.get("server") else ""
    text.append(f"{name}{', a new flow' if entry else ''}: {_way(node)}{differs}{away}")
    return text + [f"{name} differs: {line}" for line in node["differences"]]


def _together(live: Mapping[str, Value]) -> Iterable[str]:
    """Whether the nodes that answer, and that packets may come to, agree."""
    there = {name: node for name, node in live.items() if node.get("service") and node["announced"] is not False}
    known = {name: node for name, node in there.items() if "slot" in node}
    servers = _grouped({name: node["server"] and node["server"]["address"] for name, node in known.items()})
    tables = _grouped({name: node["table"] for name, node in known.items()})
    if len(servers) > 1:
        yield f"the nodes differ on this flow, which breaks when ECMP moves it: {_apart(servers)}"
    elif len(tables) > 1:
        yield f"the nodes agree on this flow, but their tables differ: {_apart(tables)}"
    elif len(there) > 1 and tables:
        yield f"the same on {', '.join(there)}"


def _grouped(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    """The names by value, in order."""
    found: dict[Any, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


def _apart(groups: Mapping[Any, list[str]]) -> str:
    return "; ".join(f"{', '.join(names)}: {value or 'dropped'}" for value, names in groups.items())


def _way(found: Value) -> str:
    """`l7-3 (192.0.2.153), slot 2964 of 4093, table d4e179d82051`, and why where it is not the slot's own server."""
    if "slot" not in found:
        return f"scheduler {found['scheduler']} decides, not a Maglev table"
    where = _named(found["server"]) if found["server"] else "nowhere, dropped"
    words = f"{where}, slot {found['slot']} of {found['slots']}, table {found['table']}"
    if found["holder"] is None:
        return f"{words}: no server holds a slot"
    if found["fallback"] or found["server"] is None:
        how = "by fallback, for" if found["fallback"] else "because"
        return f"{words}: {how} {_named(found['holder'])} is at weight 0"
    return words


def _named(server: Mapping[str, str]) -> str:
    return f"{server['name']} ({server['address']})" if server["name"] else server["address"]


def _server(cluster: Cluster, address: str) -> dict[str, str]:
    """The name is empty when the file does not have the address."""
    names = [name for name, node in cluster.nodes.items() if address in (str(node.ipv4), str(node.ipv6))]
    return {"name": "".join(names), "address": address}


def _service(rows: Iterable[Row]) -> VirtualService:
    return next(row for row in rows if isinstance(row, VirtualService))


def _name(key: ServiceKey, row: Mapping[str, Any]) -> str:
    return Destination(key, row["address"], 0, port=0 if row["port"] == key.real_port else row["port"]).name
