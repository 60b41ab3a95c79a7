"""What is probed, what a probe found, and what a row of results means. PURE.

`up` is None until something is known: a server that has not been probed, or that could not be probed because of this
node (no descriptors, no route), is not down.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from lbnode.maintenance.state import AdminState, Mode


@dataclass(frozen=True)
class Probe:
    """One thing to ask, again and again. `agent` reads an agent-check line: what people have set the node to."""

    kind: Literal["http", "tcp", "agent"]
    address: str
    port: int
    path: str = ""

    @property
    def id(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.kind}://{host}:{self.port}{self.path}"


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
    `silences` those in a row to which nothing came back; `silent` says that these were enough to believe it."""

    up: bool | None = None
    reason: str = "not probed yet"
    admin: AdminState | None = None
    streak: int = 0
    silences: int = 0
    silent: bool = False

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
    silences = before.silences + 1 if outcome.silent else 0
    silent = silences >= fall
    if outcome.ok == before.up or (outcome.ok and before.up is None):
        return Health(outcome.ok, outcome.detail, admin, 0, silences, silent)
    streak = before.streak + 1
    if streak >= (rise if outcome.ok else fall):
        return Health(outcome.ok, outcome.detail, admin, 0, silences, silent)
    reason = outcome.detail if before.up is None else before.reason
    return replace(before, reason=reason, admin=admin, streak=streak, silences=silences, silent=silent)
