"""What is probed, what a probe found, and what a row of results means. PURE.

`up` is None until something is known: a server that has not been probed, or that could not be probed because of this
node (no descriptors, no route), is not down.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lbnode.maintenance.state import AdminState, Mode

DIRECT_MARK = 0x6C62
"""Any mark but 0 would do; this one is unlikely to mean something in an operator's own rules."""


@dataclass(frozen=True)
class Probe:
    """One thing to ask, again and again. `agent` reads an agent-check line: what people have set the node to.

    `mark` decides the way it takes: DIRECT_MARK goes where the routes say; one that IPVS knows a virtual service by
    goes through that, in the tunnel, to the real server behind it, and then `address` is a VIP. `source`: the own
    address it asks from; any if empty. The last five matter to http, https and script (`config.model.ServiceProbe`).
    """

    kind: Literal["http", "https", "tcp", "agent", "script"]
    address: str
    port: int
    path: str = ""
    mark: int = DIRECT_MARK
    source: str = ""
    host: str = ""
    status: tuple[str, ...] = ("2xx", "3xx")
    body: str = ""
    verify: bool = False
    script: str = ""

    @property
    def id(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        way = "" if self.mark == DIRECT_MARK else f" mark {self.mark:#x}"
        return f"{self.kind}://{host}:{self.port}{self.path or self.script}{way}"


@dataclass(frozen=True)
class Outcome:
    """One probe's answer. `ok` is None when this node could not ask. `silent`: nothing at all came back, as from a
    machine that is gone; a refusal or an answer of any kind is the word of a live one."""

    ok: bool | None
    detail: str
    admin: AdminState | None = None
    silent: bool = False


@dataclass(frozen=True)
class Health:
    """What is held to be true of one probe's target. `streak` counts the results in a row that speak against `up`,
    `silences` those in a row to which nothing came back, up to what it takes to believe it; `silent` says so."""

    up: bool | None = None
    reason: str = "not probed yet"
    admin: AdminState | None = None
    streak: int = 0
    silences: int = 0
    silent: bool = False
    back_for_s: float | None = field(default=None, compare=False)
    """Seconds since it came up after it was down; None for one that was never down."""

    def as_json(self) -> dict[str, Any]:
        admin = self.admin
        words = None if admin is None else {**admin.__dict__, "mode": str(admin.mode)}
        return {"up": self.up, "reason": self.reason, "admin": words, "silent": self.silent}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Health":
        words = data["admin"]
        admin = None if words is None else AdminState(**{**words, "mode": Mode(words["mode"])})
        return cls(data["up"], data["reason"], admin, silent=data.get("silent", False))


def step(before: Health, outcome: Outcome, rise: int, fall: int) -> Health:
    """The health after one more outcome: `rise` successes or `fall` failures in a row turn it.

    A first success is believed at once. First failures are not: an agent that has just started would otherwise take
    out, for one lost packet, what served before it came. An agent-check that does not answer changes nothing: the last
    word stands, as it does in HAProxy.
    """
    if outcome.ok is None:
        return replace(before, reason=f"cannot probe: {outcome.detail}")
    admin = outcome.admin if outcome.admin is not None else before.admin
    silences = min(before.silences + 1, fall) if outcome.silent else 0
    silent = silences >= fall
    if outcome.ok == before.up or (outcome.ok and before.up is None):
        return Health(outcome.ok, outcome.detail, admin, 0, silences, silent)
    streak = before.streak + 1
    if streak >= (rise if outcome.ok else fall):
        return Health(outcome.ok, outcome.detail, admin, 0, silences, silent)
    reason = outcome.detail if before.up is None else before.reason
    return replace(before, reason=reason, admin=admin, streak=streak, silences=silences, silent=silent)
