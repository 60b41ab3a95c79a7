"""What a running HAProxy holds besides its configuration, and how it is changed there: servers, tables, certificates.

Each change is what the management manual says of it (2.6, `add server` and on); its answers are compared with those of
success, for failures are only told in words. What cannot be done in a running HAProxy raises NeedsReload: the file is
right already, so that a reload does it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from lbnode.errors import ApplyFailed, LbnodeError
from lbnode.haproxy.configuration import ENABLER, canonical
from lbnode.haproxy.runtime import Runtime
from lbnode.paths import Paths
from lbnode.plan import Change
from lbnode.resources import Certificate, PoolServer, ProxyTable, Row

IN_MAINTENANCE = 0x01  # SRV_ADMF_FMAINT in srv_admin_state
CONFIGURED = 0x02  # CHK_ST_CONFIGURED in srv_agent_state
KINDS: tuple[type[Row], ...] = (Certificate, ProxyTable, PoolServer)
FINGERPRINT = "SHA1 FingerPrint: "
LISTINGS: dict[str, str] = {"map": "show map", "acl": "show acl", "crt-list": "show ssl crt-list"}


class NeedsReload(ApplyFailed):
    """A running HAProxy cannot be changed so (caught by the driver, which then reloads it)."""


@dataclass(frozen=True)
class Live:
    """One running HAProxy. The servers that were taken out and still have connections are remembered under /run."""

    runtime: Runtime
    paths: Paths

    def rows(self, wanted: Iterable[Row]) -> tuple[list[Row], list[str]]:
        """What it holds of the wanted kinds, and what is waited for, in words. Raises NotReady."""
        wanted = [row for row in wanted if isinstance(row, KINDS)]
        servers, waiting = self._servers({row.title for row in wanted if isinstance(row, PoolServer)})
        found: list[Row] = list(servers)
        for row in wanted:
            if isinstance(row, ProxyTable):
                found += self._table(row)
            elif isinstance(row, Certificate):
                found += self._certificate(row)
        return found, waiting

    def change(self, change: Change) -> None:
        """Raises NeedsReload or another LbnodeError."""
        old, new = change.old, change.new
        if isinstance(change.row, PoolServer):
            self._change_server(cast("PoolServer | None", old), cast("PoolServer | None", new))
        elif isinstance(new, ProxyTable):
            before = cast("ProxyTable", old) if old else None
            if before is None:
                raise NeedsReload(f"HAProxy has not read {new.path}")
            if new.kind == "crt-list":
                self._relist(before, new)
            else:
                self._refill(new)
        elif isinstance(new, Certificate) and list(self._certificate(new)) != [new]:
            self._renew(new.path)

    def _servers(self, wanted: set[str]) -> tuple[list[PoolServer], list[str]]:
        states = [state for state in self.runtime.servers_state() if _ours(state)]
        leaving = self._leaving()
        held = self._sessions(leaving - wanted, states)
        found: list[PoolServer] = []
        waiting: list[str] = []
        for state in states:
            name = f"{state['be_name']}/{state['srv_name']}"
            out = name in leaving and bool(int(state["srv_admin_state"]) & IN_MAINTENANCE)
            if out and held.get(name):
                waiting.append(f"server {name} leaves when its {held[name]} connections have ended")
            else:
                found.append(_row(state, out))
        return found, waiting

    def _sessions(self, names: set[str], states: Iterable[Mapping[str, str]]) -> dict[str, int]:
        """What keeps servers from leaving: their connections, idle ones too (HAProxy closes them by and by,
        `pool-purge-delay`), and requests that wait for them."""
        there = {state["be_name"] for state in states} if names else set()
        rows = [
            row
            for backend in sorted(there.intersection(name.rpartition("/")[0] for name in names))
            for row in self.runtime.stat(f"{backend} 4 -1")
        ]
        found = ((f"{row['pxname']}/{row['svname']}", _held_by(row)) for row in rows)
        return {name: held for name, held in found if name in names}

    def _table(self, wanted: ProxyTable) -> Iterator[ProxyTable]:
        lines = self.runtime.command(f"{LISTINGS[wanted.kind]} {wanted.path}").splitlines()
        if wanted.kind == "crt-list":
            entries = [line.split()[0] for line in lines if line.startswith("/")]
            if lines and lines[0].startswith("#"):
                yield ProxyTable(wanted.path, wanted.kind, tuple(entries))
        elif not any(line.startswith("Unknown") for line in lines):
            entries = sorted(line.partition(" ")[2] for line in lines if line.startswith("0x"))
            yield ProxyTable(wanted.path, wanted.kind, tuple(entries))

    def _certificate(self, wanted: Certificate) -> Iterator[Certificate]:
        lines = self.runtime.command(f"show ssl cert {wanted.path}").splitlines()
        prints = [line.removeprefix(FINGERPRINT).lower() for line in lines if line.startswith(FINGERPRINT)]
        yield from (Certificate(wanted.path, text) for text in prints[:1])

    def _change_server(self, old: PoolServer | None, new: PoolServer | None) -> None:
        if new is None:
            self._remove(cast("PoolServer", old))
        elif old is None:
            self._add(new)
        else:
            self._move(old, new)

    def _add(self, new: PoolServer) -> None:
        """With its own checks, in service at once: HAProxy makes it in maintenance, its checks asleep, and its agent
        down until the agent says `up`."""
        host = f"[{new.address}]" if ":" in new.address else new.address
        self._order(f"add server {new.title} {host}:{new.port} {new.words}", "New server registered.")
        orders = [f"enable health {new.title}"] if new.checked else []
        orders += [f"enable agent {new.title}", f"set server {new.title} agent up"] if new.asked else []
        for order in [*orders, f"set server {new.title} state ready"]:
            self._order(order)

    def _remove(self, old: PoolServer) -> None:
        """Takes it out, and away as soon as it has no connection; what it is doing it may finish."""
        self._remember({*self._leaving(), old.title})
        # Its agent's `ready` would bring it back.
        self.runtime.command(f"disable agent {old.title}")
        self._order(f"set server {old.title} state maint")
        answer = self.runtime.command(f"del server {old.title}").strip()
        if answer == "Server deleted.":
            self._remember(self._leaving() - {old.title})
        elif "connections attached" not in answer:
            raise NeedsReload(f"HAProxy says to 'del server {old.title}': {answer}")

    def _move(self, old: PoolServer, new: PoolServer) -> None:
        if old.weight != new.weight:
            if new.asked:
                raise NeedsReload(
                    f"weight of {new.title}: its agent's percentages count from the weight that HAProxy began with"
                )
            self._order(f"set server {new.title} weight {new.weight}")
        if (old.address, old.port) != (new.address, new.port):
            answer = self.runtime.command(f"set server {new.title} addr {new.address} port {new.port}").strip()
            if "changed from" not in answer and "no need" not in answer:
                raise NeedsReload(f"HAProxy says to a new address of {new.title}: {answer}")
        if old.leaving:
            if new.asked:
                self._order(f"enable agent {new.title}")
            self._order(f"set server {new.title} state ready")
            self._remember(self._leaving() - {new.title})

    def _refill(self, new: ProxyTable) -> None:
        """All entries at once: no request meets half a table."""
        answer = self.runtime.command(f"prepare {new.kind} {new.path}").strip()
        version = answer.removeprefix("New version created: ")
        if not version.isdigit():
            raise NeedsReload(f"HAProxy says to 'prepare {new.kind} {new.path}': {answer}")
        if new.kind == "map" and new.entries:
            self._order(f"add map @{version} {new.path}", "", "\n".join(new.entries))
        if new.kind == "acl":
            for entry in new.entries:
                self._order(f"add acl @{version} {new.path} {entry}")
        self._order(f"commit {new.kind} @{version} {new.path}")

    def _relist(self, old: ProxyTable, new: ProxyTable) -> None:
        """Certificates that come and go. The first is everybody's, which only a reload changes."""
        if old.entries[:1] != new.entries[:1]:
            raise NeedsReload(f"another certificate is the first one of {new.title}")
        staying = [entry for entry in old.entries if entry in new.entries]
        coming = [entry for entry in new.entries if entry not in old.entries]
        if (*staying, *coming) != new.entries:
            raise NeedsReload(f"another order of certificates in {new.title}")
        for path in coming:
            if "Filename: " not in self.runtime.command(f"show ssl cert {path}"):
                self._order(f"new ssl cert {path}", f"New empty certificate store '{path}'!")
            self._renew(path)
            self._order(f"add ssl crt-list {new.path} {path}", "Success!")
        for path in old.entries:
            if path not in new.entries:
                self._order(f"del ssl crt-list {new.path} {path}", f"Entry '{path}' deleted in crtlist '{new.path}'!")

    def _renew(self, path: str) -> None:
        """Gives HAProxy the certificate as it is on the disk."""
        try:
            text = Path(path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ApplyFailed(f"cannot read certificate {path}: {error}") from error
        pem = "\n".join(line for line in text.splitlines() if line.strip())  # an empty line would end it
        try:
            self._order(f"set ssl cert {path}", f"Transaction created for certificate {path}!", pem)
            self._order(f"commit ssl cert {path}", "Success!")
        except LbnodeError:
            self.runtime.command(f"abort ssl cert {path}")
            raise

    def _order(self, text: str, success: str = "", payload: str = "") -> None:
        """A command whose answer ends with these words."""
        answer = self.runtime.command(text, payload).strip()
        if answer != success and (not success or not answer.endswith(success)):
            raise NeedsReload(f"HAProxy says to '{text[:60]}': {answer}")

    def _leaving(self) -> set[str]:
        try:
            return set(json.loads(self.paths.haproxy_leaving.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return set()

    def _remember(self, leaving: Iterable[str]) -> None:
        fresh = self.paths.haproxy_leaving.with_suffix(".new")
        fresh.write_text(json.dumps(sorted(leaving)), encoding="utf-8")
        fresh.replace(self.paths.haproxy_leaving)


def _ours(state: Mapping[str, str]) -> bool:
    """Not the enabler, and none that HAProxy itself finds by DNS."""
    return (state["be_name"], state["srv_name"]) != ENABLER and state["srv_fqdn"] == "-" and state["srvrecord"] == "-"


def _row(state: Mapping[str, str], leaving: bool) -> PoolServer:
    asked = bool(int(state["srv_agent_state"]) & CONFIGURED)
    # An agent's percentage changes the user's weight, and leaves the initial one.
    weight = state["srv_iweight" if asked else "srv_uweight"]
    return _server(state["be_name"], state["srv_name"], state["srv_addr"], state["srv_port"], weight, leaving, asked)


@lru_cache(maxsize=1 << 16)
def _server(backend: str, name: str, address: str, port: str, weight: str, leaving: bool, asked: bool) -> PoolServer:
    """The very same row as long as nothing of it changes, which makes comparing thousands of them quick."""
    return PoolServer(backend, name, canonical(address), int(port), int(weight), leaving, asked=asked)


def _held_by(row: Mapping[str, str]) -> int:
    busy = max(int(row["scur"]), int(row["used_conn_cur"]))
    return busy + int(row["idle_conn_cur"]) + int(row["qcur"])


def as_wanted(wanted: Sequence[Row]) -> list[Row]:
    """What a reload will bring anyway."""
    return [row for row in wanted if isinstance(row, KINDS)]
