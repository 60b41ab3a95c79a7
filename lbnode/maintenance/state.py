"""What people have set a node to, and how it is written in a file and told in HAProxy's agent-check protocol. PURE.

One line of words, as HAProxy's agent-check knows them (haproxy 2.6 configuration manual, `agent-check`): `up`, `ready`,
`drain`, `maint`, `down`, `stopped`, `fail`, a percentage, `maxconn:N`, and `# text` for the reason.

The text may begin with moments, which HAProxy does not heed and this node acts on by itself: `deadline=T`, when a drain
becomes `maint`, so that what is left of its flows is ended; `until=T`, when the node is ready again. T is a time with
its zone, such as 2026-11-20T22:00:00Z.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from lbnode.errors import LbnodeError


class Mode(StrEnum):
    """READY takes flows; DRAIN takes no new ones and keeps the old; MAINT is out."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


HEALTH_WORDS = {"up": Mode.READY, "down": Mode.MAINT, "stopped": Mode.MAINT, "fail": Mode.MAINT}
ADMIN_WORDS = {"ready": Mode.READY, "drain": Mode.DRAIN, "maint": Mode.MAINT}


@dataclass(frozen=True)
class AdminState:
    """`word` is the mode's word as it was written (`maint` and `down` differ inside HAProxy). `deadline` and `until`
    are moments, in seconds since 1970."""

    mode: Mode = Mode.READY
    word: str = "ready"
    percent: int = 100
    maxconn: int | None = None
    reason: str = ""
    deadline: int | None = None
    until: int | None = None

    def __str__(self) -> str:
        share = f" {self.percent}%" if self.percent != 100 else ""
        limit = f" maxconn:{self.maxconn}" if self.maxconn is not None else ""
        later = f", maint from {moment(self.deadline)}" if self.deadline is not None else ""
        later += f", ready from {moment(self.until)}" if self.until is not None else ""
        return f"{self.mode}{share}{limit}{later}" + (f" ({self.reason})" if self.reason else "")

    @property
    def text(self) -> str:
        """What stands after `#`: moments and reason."""
        times = (("deadline", self.deadline), ("until", self.until))
        words = [f"{key}={moment(time)}" for key, time in times if time is not None]
        return " ".join([*words, *self.reason.split()])


READY = AdminState()
MOMENT = re.compile(r"(deadline|until)=(\S*)\s*")


def moment(seconds: int) -> str:
    """`2026-11-20T22:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> AdminState:
    """The state that one line means. An empty file means ready. Raises LbnodeError on a word HAProxy would ignore.

    HAProxy keeps health words and admin words apart, the last of each kind counts; a node that is down for either
    reason is out here.
    """
    line = text.strip().splitlines()[0] if text.strip() else ""
    words, _, reason = line.partition("#")
    health, admin, percent, maxconn = "up", "ready", 100, None
    for item in re.split(r"[ \t,]+", words.strip().lower()):
        if item in HEALTH_WORDS:
            health = item
        elif item in ADMIN_WORDS:
            admin = item
        elif match := re.fullmatch(r"(\d{1,3})%", item):
            percent = min(int(match[1]), 256)
        elif match := re.fullmatch(r"maxconn:(\d{1,9})", item):
            maxconn = int(match[1])
        elif item:
            known = ", ".join([*ADMIN_WORDS, *HEALTH_WORDS])
            raise LbnodeError(f"cannot understand {item!r}: use one of {known}, a share such as 75%, or maxconn:30")
    word = admin if health == "up" else health
    times, why = _moments(reason.strip())
    return AdminState((ADMIN_WORDS | HEALTH_WORDS)[word], word, percent, maxconn, why, **times)


def _moments(text: str) -> tuple[dict[str, int], str]:
    """The moments at the beginning of a comment, by name, and the rest of it."""
    found: dict[str, int] = {}
    while match := MOMENT.match(text):
        time = _time(match[2])
        if time is None:
            raise LbnodeError(f"cannot understand {match[0].strip()!r}: write it as {match[1]}=2026-11-20T22:00:00Z")
        found[match[1]] = time
        text = text[match.end() :]
    return found, text


def _time(text: str) -> int | None:
    """Seconds since 1970; None for what is no time with a zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(time.timestamp()) if time.tzinfo else None


def answer(state: AdminState) -> bytes:
    """The agent-check line that tells this state in full, so that nothing told before can stick.

    HAProxy keeps health (up, down), admin state (ready, drain, maint) and weight apart, and each is undone only by a
    word of its own kind; so every answer names all three (src/tcpcheck.c, tcpcheck_agent_expect_reply).
    """
    health, admin = ("up", state.word) if state.word in ADMIN_WORDS else (state.word, "ready")
    words = [health, admin, f"{state.percent}%"]
    if state.maxconn is not None:
        words.append(f"maxconn:{state.maxconn}")
    if state.text:
        words.append(f"# {state.text}")
    return (" ".join(words) + "\n").encode()


def effective(disabled: str | None, agent_check: AdminState, now: float) -> AdminState:
    """What the two files mean together, at a moment: `disable` (its text is the reason; None: no such file) wins, as
    `down`; then what is over is over, and a drain whose deadline has passed is `maint`."""
    state = agent_check
    if disabled is not None:
        return AdminState(Mode.MAINT, "down", state.percent, state.maxconn, disabled or "disable file")
    if state.until is not None and state.until <= now:
        return READY
    if state.mode is Mode.DRAIN and state.deadline is not None and state.deadline <= now:
        over = f"the drain's deadline, {moment(state.deadline)}, has passed"
        why = f"{over}: {state.reason}" if state.reason else over
        return replace(state, mode=Mode.MAINT, word="maint", reason=why, deadline=None)
    return state


def coming(state: AdminState, now: float) -> Iterator[int]:
    """The moments at which the state will be another one."""
    times = (state.deadline if state.mode is Mode.DRAIN else None, state.until)
    return (time for time in times if time is not None and time > now)
