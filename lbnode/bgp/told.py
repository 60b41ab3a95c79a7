"""What the relay has left behind for others: whether it lives, what ExaBGP announces, and how its peers are."""

import fcntl
import json
import os
from dataclasses import dataclass
from typing import Any

from lbnode.bgp.words import BLANK, LOCK
from lbnode.errors import LbnodeError
from lbnode.paths import Paths
from lbnode.resources import Announcement, Key


@dataclass(frozen=True)
class Told:
    """`config` is the digest ExaBGP runs with; `serial` that of the last `wanted` that has been carried out as far as
    possible; `refused` says why, by key; `peers` maps an address to state (up, down, connected), since (seconds since
    1970) and reason; `problem` is "" when all is well; `agent_gone`: since when the agent has counted as gone."""

    config: str
    serial: str
    announced: tuple[Announcement, ...]
    refused: dict[Key, str]
    peers: dict[str, dict[str, Any]]
    problem: str
    agent_gone: float | None = None


def alive(paths: Paths) -> bool:
    """Whether a relay runs, and so ExaBGP. The kernel drops the lock when its holder ends, however it ends."""
    try:
        lock = os.open(paths.bgp_told.with_name(LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LbnodeError(f"cannot see whether ExaBGP runs: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_told(paths: Paths) -> Told | None:
    """None when no relay lives (ExaBGP does not run, then nothing is announced) or it has not spoken yet.

    Raises LbnodeError when the file cannot be read or is not the relay's.
    """
    if not alive(paths):
        return None
    try:
        data = json.loads(paths.bgp_told.read_text(encoding="utf-8"))
        return Told(
            config=data["config"],
            serial=data["serial"],
            announced=tuple(announcement(row) for row in data["announced"]),
            refused={(Announcement.KIND, row["prefix"], row["peer"]): row["why"] for row in data["refused"]},
            peers=data["peers"],
            problem=data["problem"],
            agent_gone=data.get("agent_gone"),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LbnodeError(f"cannot read {paths.bgp_told}: {error!r}") from error


def announcement(row: dict[str, Any]) -> Announcement:
    """A row of `wanted` or `told`; one that an older version wrote lacks some attributes."""
    row = BLANK | row
    return Announcement(
        prefix=row["prefix"],
        peer=row["peer"],
        next_hop=row["next_hop"],
        med=row["med"],
        communities=tuple(row["communities"]),
        local_preference=row["local_preference"],
        large_communities=tuple(row["large_communities"]),
        prepend=row["prepend"],
    )
