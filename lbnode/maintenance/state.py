"""What people have set a node to, and how it is written in a file and told in HAProxy's agent-check protocol. PURE.

One line of words, as HAProxy's agent-check knows them (haproxy 2.6 configuration manual, `agent-check`): `up`, `ready`,
`drain`, `maint`, `down`, `stopped`, `fail`, a percentage, `maxconn:N`, and `# text` for the reason.

The text may begin with words that HAProxy does not heed and this node acts on by itself: `deadline=T`, when a drain
becomes `maint`, so that what is left of its flows is ended; `until=T`, when the node is ready again; `leave=now`: what
it announces is withdrawn at once. T is a time with its zone, such as 2026-11-20T22:00:00Z.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
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
    are moments, in seconds since 1970, and so is `since`: when people said so, if that is known. `at_once`: it leaves
    without the steps that spare its flows."""

    mode: Mode = Mode.READY
    word: str = "ready"
    percent: int = 100
    maxconn: int | None = None
    reason: str = ""
    deadline: int | None = None
    until: int | None = None
    at_once: bool = False
    since: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        share = f" {self.percent}%" if self.percent != 100 else ""
        limit = f" maxconn:{self.maxconn}" if self.maxconn is not None else ""
        later = f", maint from {moment(self.deadline)}" if self.deadline is not None else ""
        later += f", ready from {moment(self.until)}" if self.until is not None else ""
        haste = ", at once" if self.in_haste else ""
        return f"{self.mode}{share}{limit}{haste}{later}" + (f" ({self.reason})" if self.reason else "")

    @property
    def in_haste(self) -> bool:
        """Whether it leaves at once because somebody said so, and not because its word means that anyway."""
        return self.at_once and self.word not in HEALTH_WORDS

    @property
    def text(self) -> str:
        """What stands after `#`: haste, moments and reason."""
        times = (("deadline", self.deadline), ("until", self.until))
        words = [AT_ONCE] if self.in_haste else []
        words += [f"{key}={moment(time)}" for key, time in times if time is not None]
        return " ".join([*words, *self.reason.split()])


READY = AdminState()
AT_ONCE = "leave=now"
WORD = re.compile(r"(deadline|until|leave)=(\S*)\s*")
SEVERITY = (Mode.READY, Mode.DRAIN, Mode.MAINT)


def moment(seconds: int) -> str:
    """`2026-11-20T22:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> AdminState:
    """The state that one line means. An empty file means ready. Raises LbnodeError on a word HAProxy would ignore.

    HAProxy keeps health words and admin words apart, the last of each kind counts; a node that is down for either
    reason is out here. A health word says that the node is broken: it leaves at once.
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
    mode = (ADMIN_WORDS | HEALTH_WORDS)[word]
    times, haste, why = _comment(reason.strip())
    return AdminState(mode, word, percent, maxconn, why, **times, at_once=haste or health != "up")


def _comment(text: str) -> tuple[dict[str, int], bool, str]:
    """The moments at the beginning of a comment, by name; whether it says AT_ONCE; and the rest of it."""
    found: dict[str, int] = {}
    haste = False
    while match := WORD.match(text):
        said = match[0].strip()
        time = _time(match[2])
        if match[1] == "leave" and said != AT_ONCE:
            raise LbnodeError(f"cannot understand {said!r}: write it as {AT_ONCE}")
        if match[1] != "leave" and time is None:
            raise LbnodeError(f"cannot understand {said!r}: write it as {match[1]}=2026-11-20T22:00:00Z")
        if time is None:
            haste = True
        else:
            found[match[1]] = time
        text = text[match.end() :]
    return found, haste, text


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
    """What the two files mean together, at a moment: `disable` (its text is the reason, after AT_ONCE if it begins so;
    None: no such file) wins, as `down`; then what is over is over, and a drain whose deadline has passed is `maint`."""
    state = agent_check
    if disabled is not None:
        haste, reason = disabled.split()[:1] == [AT_ONCE], disabled.removeprefix(AT_ONCE).strip()
        reason = reason if haste else disabled
        return AdminState(
            Mode.MAINT, "down", state.percent, state.maxconn, reason or "disable file", at_once=haste, since=state.since
        )
    if state.until is not None and state.until <= now:
        return READY
    if state.mode is Mode.DRAIN and state.deadline is not None and state.deadline <= now:
        over = f"the drain's deadline, {moment(state.deadline)}, has passed"
        why = f"{over}: {state.reason}" if state.reason else over
        return replace(state, mode=Mode.MAINT, word="maint", reason=why, deadline=None)
    return state


def together(states: Iterable[AdminState]) -> AdminState:
    """What several mean at once: the most severe counts, the first of these; in haste, and leaving since then, as any
    of those says that leaves."""
    states = tuple(states)
    found = max(states, key=lambda state: SEVERITY.index(state.mode))
    leaving = [state for state in states if state.mode is not Mode.READY]
    since = min((state.since for state in leaving if state.since is not None), default=found.since)
    return replace(found, at_once=any(state.at_once for state in leaving), since=since)


def coming(state: AdminState, now: float) -> Iterator[int]:
    """The moments at which the state will be another one."""
    times = (state.deadline if state.mode is Mode.DRAIN else None, state.until)
    return (time for time in times if time is not None and time > now)
