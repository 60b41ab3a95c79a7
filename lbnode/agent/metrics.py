"""What monitoring is told of a node: the agent's status and the kernel's counters, in Prometheus' text form.

Everything is made from values when it is asked for, so nothing can lag behind or be counted twice, and no registry is
shared with anybody. `KNOWN` says every name, its labels and its meaning once; `python -m lbnode.agent.metrics` makes
docs/reference/metrics.md from it.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from lbnode import __version__
from lbnode.ipvs.counters import Counters
from lbnode.reconcile import Pass
from lbnode.resources import Destination, Row, ServiceKey

__all__ = ["CONTENT_TYPE_LATEST", "Counts", "Snapshot", "page", "text"]


class Known(NamedTuple):
    """One metric. Counters have names that end in `_total`."""

    name: str
    about: str
    labels: tuple[str, ...] = ()


TOLD = ("peer", "prefix", "next_hop", "med", "local_preference", "communities", "large_communities", "prepend")

KNOWN = (
    Known("lbnode_build_info", "1; which lbnode runs, on which node.", ("version", "node", "role")),
    Known("lbnode_start_time_seconds", "When the agent began, in seconds since 1970."),
    Known("lbnode_admin_state", "1 for what people have set this node to: ready, drain or maint; else 0.", ("state",)),
    Known("lbnode_admin_next_seconds", "When that will be another state by itself, in seconds since 1970, if it will."),
    Known("lbnode_in_service", "L7 and backend nodes: 1 while the node takes new flows."),
    Known("lbnode_announced", "Nodes that announce: 1 while the VIP is to be announced.", ("vip",)),
    Known(
        "lbnode_damped_until_seconds",
        "Until when a VIP that has come and gone too often is announced as a second choice, in seconds since 1970.",
        ("vip",),
    ),
    Known("lbnode_departure", "Nodes that announce and leave: 1 for the phase they are in.", ("phase",)),
    Known("lbnode_departure_since_seconds", "When the node began to leave, in seconds since 1970."),
    Known("lbnode_speaker_up", "Nodes that announce: 1 while ExaBGP runs with our relay."),
    Known("lbnode_peer_up", "Nodes that announce: 1 while the BGP session is up.", ("peer",)),
    Known("lbnode_peer_prefixes", "How many prefixes the peer is told.", ("peer",)),
    Known("lbnode_told_info", '1; what the peer is told of a prefix, "" for what is left out.', TOLD),
    Known("lbnode_probe_up", "1 while the probe's target is held to be up; missing until that is known.", ("probe",)),
    Known("lbnode_server_up", "1 while a real server is to get new flows of any service.", ("server", "address")),
    Known("lbnode_server_weight", "The least of a real server's weights over all services.", ("server", "address")),
    Known(
        "lbnode_table_fingerprint",
        "The fingerprint of a service's Maglev table in the kernel, its 12 hexadecimal digits as one number (exact in "
        "a float): L4 nodes with the same number send every flow alike.",
        ("service",),
    ),
    Known("lbnode_table_info", "1; the same fingerprint as text, as status shows it.", ("service", "fingerprint")),
    Known("lbnode_table_right", "1 while the kernel's table is the wanted one.", ("service",)),
    Known("lbnode_service_flows_total", "New flows that IPVS has scheduled.", ("service",)),
    Known("lbnode_service_packets_total", "Packets of clients that IPVS has sent on.", ("service",)),
    Known("lbnode_service_bytes_total", "Bytes of clients that IPVS has sent on.", ("service",)),
    Known(
        "lbnode_second_chance",
        "L7 and backend nodes: 1 while flows that came to the wrong node are sent on; 0 where that is not possible.",
    ),
    Known(
        "lbnode_second_chance_packets_total",
        "L7 and backend nodes: clients' packets that came in a tunnel, by what became of them: socket, cookie and new "
        "are at home here; forwarded and forwarded-again went on to another real server; alone and two-hops were left "
        "to this kernel, which resets them; stranger came from nobody in the cluster; odd are fragments.",
        ("reason",),
    ),
    Known("lbnode_passes_total", "Passes made: desired and actual state compared."),
    Known("lbnode_failed_passes_total", "Passes after which something was not as it should be."),
    Known("lbnode_changes_total", "Changes made, of any cause."),
    Known("lbnode_failed_changes_total", "Changes that did not take."),
    Known("lbnode_drift_repairs_total", "Changes that nobody asked for: somebody else had altered what is lbnode's."),
    Known("lbnode_pass_seconds", "How long the last pass took."),
    Known("lbnode_last_pass_time_seconds", "When the last good pass began, in seconds since 1970."),
    Known("lbnode_problems", "How many problems status shows."),
    Known("lbnode_foreign", "How many things of others stand beside lbnode's and are left alone."),
    Known("lbnode_leaving", "How many destinations have left the cluster file and still have flows."),
)

Value = tuple[str, tuple[str, ...], float]
"""Name, values of its labels, and the number."""


@dataclass
class Counts:
    """What an agent has done since it began."""

    passes: int = 0
    failed_passes: int = 0
    changes: int = 0
    failed_changes: int = 0
    drift_repairs: int = 0

    def add(self, done: Pass | None, drift: int = 0) -> None:
        """One more pass (None: it could not be carried through); `drift` of its changes nobody had asked for."""
        self.passes += 1
        self.failed_passes += done is None or bool(done.errors)
        results = done.results if done else ()
        failed = sum(bool(result.error) for result in results)
        self.failed_changes += failed
        self.changes += len(results) - failed
        self.drift_repairs += drift


@dataclass(frozen=True)
class Snapshot:
    """A node at one moment: the agent's status, the rows it wants, names by address, and what the kernel counted."""

    status: Mapping[str, Any]
    rows: Sequence[Row] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[ServiceKey, Counters] = field(default_factory=dict)

    def collect(self) -> Iterator[Metric]:
        """Every metric of KNOWN that this node has values for, in that order."""
        values: defaultdict[str, list[Value]] = defaultdict(list)
        for value in self._values():
            values[value[0]].append(value)
        for known in KNOWN:
            if known.name in values:
                kind = CounterMetricFamily if known.name.endswith("_total") else GaugeMetricFamily
                family = kind(known.name, known.about, labels=known.labels)
                for _, labels, number in values[known.name]:
                    family.add_metric(labels, number)
                yield family
        yield from ProcessCollector(registry=None).collect()

    def _values(self) -> Iterator[Value]:
        status, last = self.status, self.status["last_pass"]
        yield "lbnode_build_info", (__version__, status["node"], status["role"]), 1
        yield "lbnode_start_time_seconds", (), status["agent"]["since"]
        for state in ("ready", "drain", "maint"):
            yield "lbnode_admin_state", (state,), status["admin_mode"] == state
        if status["admin_next"] is not None:
            yield "lbnode_admin_next_seconds", (), status["admin_next"]
        for name, count in status["counts"].items():
            yield f"lbnode_{name}_total", (), count
        if last:
            yield "lbnode_pass_seconds", (), last["seconds"]
            yield "lbnode_last_pass_time_seconds", (), last["at"]
            yield "lbnode_foreign", (), len(last["foreign"])
            yield "lbnode_leaving", (), len(last["waiting"])
        yield "lbnode_problems", (), len(status["problems"])
        yield from self._seen()
        yield from self._servers()
        yield from self._tables()

    def _seen(self) -> Iterator[Value]:
        for verdict in self.status["verdicts"]:
            if verdict["kind"] == "vip":
                yield "lbnode_announced", (verdict["name"],), verdict["good"]
            elif verdict["kind"] == "node":
                yield "lbnode_in_service", (), verdict["good"]
            elif verdict["kind"] == "second chance":
                yield "lbnode_second_chance", (), verdict["good"] and verdict["state"] == "on"
        for reason, count in self.status.get("second_chance", {}).items():
            yield "lbnode_second_chance_packets_total", (reason,), count
        yield from self._announced()
        for probe, health in self.status["health"].items():
            if health["up"] is not None:
                yield "lbnode_probe_up", (probe,), health["up"]

    def _announced(self) -> Iterator[Value]:
        status = self.status
        for vip, end in status.get("damped", {}).items():
            yield "lbnode_damped_until_seconds", (vip,), end
        if leaving := status.get("leaving"):
            yield "lbnode_departure", (leaving["phase"],), 1
            if leaving["since"] is not None:
                yield "lbnode_departure_since_seconds", (), leaving["since"]
        if "speaker" in status:
            yield "lbnode_speaker_up", (), status["speaker"]["running"]
        told = status.get("told", ())
        for address, peer in status.get("peers", {}).items():
            yield "lbnode_peer_up", (address,), peer["state"] == "up"
            yield "lbnode_peer_prefixes", (address,), sum(route["peer"] == address for route in told)
        for route in told:
            yield "lbnode_told_info", tuple(_label(route[name]) for name in TOLD), 1

    def _servers(self) -> Iterator[Value]:
        weights: defaultdict[str, list[int]] = defaultdict(list)
        for row in self.rows:
            if isinstance(row, Destination) and not row.service.carries_probes:
                weights[row.address].append(row.weight)
        for address, found in weights.items():
            labels = (self.names.get(address, ""), address)
            yield "lbnode_server_up", labels, max(found) > 0
            yield "lbnode_server_weight", labels, min(found)

    def _tables(self) -> Iterator[Value]:
        for service, table in self.status.get("tables", {}).items():
            yield "lbnode_table_right", (service,), table["equal"]
            if table["fingerprint"]:
                yield "lbnode_table_fingerprint", (service,), int(table["fingerprint"], 16)
                yield "lbnode_table_info", (service, table["fingerprint"]), 1
        for key, counted in self.counters.items():
            if not key.carries_probes:
                yield "lbnode_service_flows_total", (str(key),), counted.flows
                yield "lbnode_service_packets_total", (str(key),), counted.packets
                yield "lbnode_service_bytes_total", (str(key),), counted.bytes


def _label(value: object) -> str:
    """A setting as the value of a label."""
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def text(snapshot: Snapshot) -> bytes:
    """The whole answer; its Content-Type is CONTENT_TYPE_LATEST."""
    return generate_latest(snapshot)


INTRO = """\
# Metrics

<!-- Generated by `python -m lbnode.agent.metrics`; do not edit. -->

Every agent answers `GET /metrics` on its node's own addresses and on loopback, at port `metrics.port` of the cluster
file (9478; 0 turns it off), in Prometheus' text form. It answers the cluster's own nodes, the machine itself, and the
networks of `metrics.allow`; it closes everybody else's connections.

```yaml
metrics: {allow: [192.0.2.0/25]}
```

`GET /tables` is for `lbnode explain` on other nodes: this node's Maglev tables as the kernel has them, in JSON
(`?service=198.51.100.1:80/tcp` for one). [Alerts](../how-to/alerts.md) has rules to begin with.

| Metric | Kind | Labels | Meaning |
| --- | --- | --- | --- |
"""
OUTRO = """
Beside these stand the usual ones of the agent's own process: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_open_fds` and so on.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return INTRO + "".join(_lines(KNOWN)) + OUTRO


def _lines(known: Iterable[Known]) -> Iterator[str]:
    for name, about, labels in known:
        kind = "counter" if name.endswith("_total") else "gauge"
        yield f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {about} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
