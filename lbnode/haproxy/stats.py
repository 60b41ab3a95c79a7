"""HAProxy's statistics as values: services with their sessions and errors, servers with why they are out. PURE.

From the rows of `lbnode.haproxy.runtime`, over either of its transports. What the columns mean: management manual, 9.1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lbnode.haproxy.runtime import Processes

Rows = Iterable[Mapping[str, str]]
UP = ("UP", "no check", "OPEN")


@dataclass(frozen=True)
class ServerStats:
    """One server of one backend. `sessions` now, `total` since HAProxy was loaded; `errors`: connections that failed
    and answers that made no sense; `why` it is out, empty when it is not."""

    backend: str
    name: str
    status: str
    weight: int
    sessions: int
    queue: int
    total: int
    errors: int
    why: str

    @property
    def out(self) -> bool:
        return bool(self.why)


@dataclass(frozen=True)
class ServiceStats:
    """One service. `errors` are answers with a 5xx status (in mode tcp: connections that failed), `refused` what rules
    have denied; `up` of its `servers` take new sessions."""

    name: str
    sessions: int
    per_s: int
    total: int
    errors: int
    refused: int
    servers: tuple[ServerStats, ...]

    @property
    def up(self) -> int:
        return sum(not server.out for server in self.servers)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "up": self.up}


def services(rows: Rows) -> tuple[ServiceStats, ...]:
    """The services of an L7 node, in the order of its configuration."""
    rows = list(rows)
    servers: dict[str, list[ServerStats]] = {}
    for row in rows:
        if row["svname"] not in ("FRONTEND", "BACKEND") and ":" in row["pxname"]:
            servers.setdefault(row["pxname"].partition(":")[0], []).append(_server(row))
    return tuple(
        _service(row, tuple(servers.get(row["pxname"].partition(":")[0], ())))
        for row in rows
        if row["svname"] == "FRONTEND" and row["pxname"].endswith(":clients")
    )


def summary(rows: Rows, processes: Processes) -> dict[str, Any]:
    """What `lbnode status` shows of it."""
    return {
        "services": [service.as_json() for service in services(rows)],
        "old_processes": [{"pid": pid, "for": age} for pid, age in processes.old],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The same in words: each service, each server that is out, and processes that are left over."""
    told: list[str] = []
    for service in found["services"]:
        counts = f"{service['sessions']} sessions, {service['per_s']}/s, {service['total']} in all"
        counts += f", {service['errors']} errors" if service["errors"] else ""
        counts += f", {service['refused']} refused" if service["refused"] else ""
        told.append(f"service {service['name']}: {counts}  # {service['up']} of {len(service['servers'])} servers up")
        told += [
            f"  server {server['backend']}/{server['name']}: {server['status']}, {server['sessions']} sessions"
            f"  # {server['why']}"
            for server in service["servers"]
            if server["why"]
        ]
    told += [
        f"old HAProxy process {old['pid']}, for {old['for']}: it ends with its last session"
        for old in found["old_processes"]
    ]
    return told


def _service(row: Mapping[str, str], servers: tuple[ServerStats, ...]) -> ServiceStats:
    http = row["mode"] == "http"
    return ServiceStats(
        name=row["pxname"].removesuffix(":clients"),
        sessions=_number(row, "scur"),
        per_s=_number(row, "req_rate" if http else "rate"),
        total=_number(row, "req_tot" if http else "stot"),
        errors=_number(row, "hrsp_5xx") if http else sum(server.errors for server in servers),
        refused=_number(row, "dreq") + _number(row, "dses"),
        servers=servers,
    )


def _server(row: Mapping[str, str]) -> ServerStats:
    return ServerStats(
        backend=row["pxname"],
        name=row["svname"],
        status=row["status"],
        weight=_number(row, "weight"),
        sessions=_number(row, "scur"),
        queue=_number(row, "qcur"),
        total=_number(row, "stot"),
        errors=_number(row, "econ") + _number(row, "eresp"),
        why=_why(row),
    )


def _why(row: Mapping[str, str]) -> str:
    """Why a server takes no new sessions."""
    status = row["status"]
    if status.startswith(UP):
        return "" if _number(row, "weight") else "weight 0"
    agent = " ".join(word for word in (row["agent_status"], row["last_agt"] or row["agent_desc"]) if word)
    if "agent" in status or (row["agent_status"] == "L7STS" and not row["check_status"]):
        return f"its agent says so: {agent}"
    if status.startswith("MAINT"):
        return "maintenance" + (f" ({status[7:-1]})" if "(" in status else "")
    if status.startswith("DRAIN"):
        return "draining"
    check = " ".join(word for word in (row["check_status"], row["check_code"], row["last_chk"]) if word)
    return f"its check: {check}" if check else status.lower()


def _number(row: Mapping[str, str], column: str) -> int:
    """Columns that do not apply are empty, and some came with later versions."""
    return int(row.get(column) or 0)
