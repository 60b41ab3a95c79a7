"""What scenarios on a leaf-spine fabric ask of it: who is who, who answers, and what FRR's shell says."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from lbnode.lab.clients.crowd import Reply, pairs
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage

DEADLINE_S = 30.0


def spines(stage: Stage) -> list[str]:
    return [name for name in stage.routes if name.startswith("spine")]


def leaves(stage: Stage) -> list[str]:
    return [name for name in stage.routes if name.startswith("leaf")]


def cable(stage: Stage, server: str) -> str:
    """A server's only interface, and that of its leaf at the other end."""
    (port,) = stage.lab.topology.machines[server].ports
    return port.lan


def leaf_of(stage: Stage, server: str) -> str:
    return next(name for name in stage.lab.topology.lans[cable(stage, server)] if name != server)


def others(stage: Stage, server: str) -> list[str]:
    """The leaves of the other servers."""
    return [name for name in leaves(stage) if name != leaf_of(stage, server)]


def until_leaves(stage: Stage, names: Iterable[str], deadline_s: float = DEADLINE_S) -> float:
    """Waits until both spines' kernels have exactly these next hops for every VIP; returns how many seconds that
    took."""
    wanted = set(names)
    return stage.wait(
        lambda: all(stage.carriers(spine, vip) == wanted for spine in spines(stage) for vip in stage.vips),
        deadline_s,
        f"{', '.join(sorted(wanted))} as the next hops of every VIP on both spines",
    )


def ask(stage: Stage, each: int, clients: int | None = None) -> list[Reply]:
    """`each` requests from every client address (or so many of each family) to every VIP of its family."""
    users = stage.lab.topology.clients
    sources = [*users.addresses(4)[:clients], *users.addresses(6)[:clients]]
    return stage.crowd.ask([pair for pair in pairs(stage.vips, sources) for _ in range(each)])


def expect_answers(stage: Stage, names: Iterable[str]) -> Counter[str]:
    """Requires that every request is answered, and that exactly these servers answer."""
    replies, wanted = ask(stage, 3), set(names)
    bad = [reply for reply in replies if reply.status != 200]
    expect(not bad, f"all of {len(replies)} requests answered", f"{len(bad)} were not, such as {bad[:1]}")
    counts = Counter(reply.backend for reply in replies)
    expect(set(counts) == wanted, f"answers from {', '.join(sorted(wanted))} and no others", dict(counts))
    return counts


def shares(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts))


def vtysh(stage: Stage, name: str, command: str) -> Any:
    """What FRR on a machine answers, as JSON."""
    return json.loads(stage.node(name).run(["vtysh", "-c", f"{command} json"], check=True).stdout)
