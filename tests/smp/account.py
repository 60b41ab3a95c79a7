"""What became of the traffic while something was done to it, and how it is told: a line per family of a table."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from network import KEYS
from traffic import Seen

FLOWS = {False: 80, True: 20}
"""Of each family: those that say a line per second, and those that are idle."""


@dataclass
class Account:
    """What became of the traffic while something was done. `hit` are the servers whose own flows are to end, and
    `applied` is when it is done and no new connection may fail any more; from the beginning, if not said."""

    what: str
    hit: Collection[str] = ()
    begun: float = field(default_factory=time.monotonic)
    applied: float = 0.0
    note: str = ""
    before: list[Seen] = field(default_factory=list)
    flows: list[Seen] = field(default_factory=list)
    calls: list[Seen] = field(default_factory=list)

    def ended(self, version: int, hit: bool) -> list[Seen]:
        """The flows that ended, of the servers that were hit or of the others."""
        return [
            flow for flow in self.flows if flow.version == version and flow.outcome and (flow.server in self.hit) == hit
        ]

    def failed_calls(self, version: int, late: bool = True) -> list[Seen]:
        """New connections that failed; `late`: begun when the change had been made."""
        return [
            call
            for call in self.calls
            if call.version == version and call.outcome != "ok" and (call.started > self.applied) == late
        ]

    def line(self, version: int) -> str:
        flows = [flow for flow in self.flows if flow.version == version]
        calls = [call for call in self.calls if call.version == version]
        old = sum(flow.retransmits for flow in self.before if flow.version == version)
        own = sum(flow.server in self.hit for flow in flows)
        lost = sum(seen.retransmits for seen in (*flows, *calls)) - old
        # Own flows and those of other servers that ended, of how many; new connections that failed: begun before the
        # change was made, and after it, of how many.
        counts = (
            f"{len(self.ended(version, hit=True))}/{own}",
            f"{len(self.ended(version, hit=False))}/{len(flows) - own}",
            f"{len(self.failed_calls(version, late=False))}",
            f"{len(self.failed_calls(version))}/{len(calls)}",
            str(lost),
        )
        return f"{self.what:<44} v{version} " + "".join(f"{text:>9}" for text in counts) + f"  {self.note}"


HEADING = f"{'':<47} " + "".join(f"{text:>9}" for text in ("own", "others", "gap", "new", "resent"))


def missing_flows(alive: list[Seen], hit: Collection[str]) -> dict[tuple[int, bool], int]:
    """How many flows are to be opened, by family and whether they are idle: to make up FLOWS, or because a server
    that will be hit has none."""
    found = {}
    for version in KEYS:
        for idle, wanted in FLOWS.items():
            there = [flow.server for flow in alive if flow.version == version and flow.idle == idle]
            count = max(wanted - len(there), 0) or 5 * bool(set(hit) - set(there))
            if count:
                found[version, idle] = count
    return found


def all_spoke(since: list[Seen], now: list[Seen]) -> bool:
    """Whether every flow has ended or has said two more lines; those of an idle one need only be answered."""
    return all(
        flow.outcome or (flow.answers == flow.asked if flow.idle else flow.answers >= before.answers + 2)
        for before, flow in zip(since, now, strict=True)
    )
