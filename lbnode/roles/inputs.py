"""What desired state is a function of, and what it comes out as. PURE."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lbnode.chance.generations import Past
from lbnode.config.model import Cluster, Node
from lbnode.health.state import Health, Probe
from lbnode.maintenance.state import READY, AdminState
from lbnode.paths import Paths
from lbnode.resources import Key, Row
from lbnode.templates import Templates


@dataclass(frozen=True)
class Chance:
    """What this node has for it: the digest of the classifier, the Ethernet devices with its own addresses, and why the
    kernel does not take the classifier, if it does not."""

    program: str = ""
    devices: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class ProxyFacts:
    """What only the L7 node itself knows: the fingerprint of each certificate file that can be read, and the digests of
    the sections that HAProxy was loaded with."""

    certificates: Mapping[str, str] = field(default_factory=dict)
    loaded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Everything a role looks at: the files, the health, and what this node does already. `ended`: the real servers'
    addresses with a local route, whose flows are being ended; `announced`: the VIPs that are announced; `leaving_s`:
    for how many seconds the node has been leaving, up to the end of the step (`maintenance.departure.age_s`);
    `damped`: the VIPs that have come and gone too often, and until when (seconds since 1970); `filters`: whether the
    kernel has nf_tables (L4 nodes do not ask); `past` and `chance`: what a second chance needs to know (only real
    servers ask); `passwords`: of BGP sessions, by the peer's name, never to be shown."""

    cluster: Cluster
    name: str
    admin: AdminState = READY
    health: Mapping[Probe, Health] = field(default_factory=dict)
    templates: Templates = field(default_factory=Templates)
    paths: Paths = field(default_factory=Paths)
    haproxy_version: tuple[int, int] = (2, 6)
    ended: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()
    filters: bool = False
    proxy: ProxyFacts = field(default_factory=ProxyFacts)
    leaving_s: float | None = None
    damped: Mapping[str, float] = field(default_factory=dict)
    past: Past = field(default_factory=Past)
    chance: Chance = field(default_factory=Chance)
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def node(self) -> Node:
        return self.cluster.nodes[self.name]


@dataclass(frozen=True)
class Verdict:
    """A decision and its reason, for status, logs and metrics: «vip 198.51.100.1: withdrawn, 0 of 4 servers up»."""

    kind: str
    name: str
    good: bool
    state: str
    reason: str = ""

    def as_json(self) -> dict[str, object]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Desired:
    """The rows a node should have; why (by row key, for the plan); and the decisions behind them. A destination that
    leaves keeps its row at weight 0 for at most `removal_s` seconds, while it has connections."""

    rows: tuple[Row, ...] = ()
    reasons: Mapping[Key, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    removal_s: int = 0
    _of: dict[tuple[type[Row], ...], tuple[Row, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def of(self, kinds: tuple[type[Row], ...]) -> tuple[Row, ...]:
        """The rows of some kinds; the very same tuple each time, by which a driver knows what it has seen before."""
        if kinds not in self._of:
            self._of[kinds] = tuple(row for row in self.rows if isinstance(row, kinds))
        return self._of[kinds]

    @classmethod
    def merge(cls, parts: Iterable["Desired"]) -> "Desired":
        """One desired state out of several; a row that two parts want alike stands once."""
        parts = tuple(parts)
        rows: dict[Row, None] = {}
        reasons: dict[Key, str] = {}
        verdicts: list[Verdict] = []
        for part in parts:
            rows.update(dict.fromkeys(part.rows))
            reasons.update(part.reasons)
            verdicts += part.verdicts
        return cls(tuple(rows), reasons, tuple(verdicts), max((part.removal_s for part in parts), default=0))
