"""What people have set a node to, and how it is written in a file and told in HAProxy's agent-check protocol. PURE.

One line of words, as HAProxy's agent-check knows them (haproxy 2.6 configuration manual, `agent-check`): `up`, `ready`,
`drain`, `maint`, `down`, `stopped`, `fail`, a percentage, `maxconn:N`, and `# text` for the reason.
"""

import re
from dataclasses import dataclass
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
    """`word` is the mode's word as it was written (`maint` and `down` differ inside HAProxy)."""

    mode: Mode = Mode.READY
    word: str = "ready"
    percent: int = 100
    maxconn: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        share = f" {self.percent}%" if self.percent != 100 else ""
        limit = f" maxconn:{self.maxconn}" if self.maxconn is not None else ""
        return f"{self.mode}{share}{limit}" + (f" ({self.reason})" if self.reason else "")


READY = AdminState()


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
    return AdminState((ADMIN_WORDS | HEALTH_WORDS)[word], word, percent, maxconn, reason.strip())


def answer(state: AdminState) -> bytes:
    """The agent-check line that tells this state in full, so that nothing told before can stick.

    HAProxy keeps health (up, down), admin state (ready, drain, maint) and weight apart, and each is undone only by a
    word of its own kind; so every answer names all three (src/tcpcheck.c, tcpcheck_agent_expect_reply).
    """
    health, admin = ("up", state.word) if state.word in ADMIN_WORDS else (state.word, "ready")
    words = [health, admin, f"{state.percent}%"]
    if state.maxconn is not None:
        words.append(f"maxconn:{state.maxconn}")
    if state.reason:
        words.append(f"# {state.reason}")
    return (" ".join(words) + "\n").encode()


def effective(disabled: str | None, agent_check: AdminState) -> AdminState:
    """What the two files mean together: `disable` (its text is the reason; None: no such file) wins, as `down`."""
    if disabled is None:
        return agent_check
    return AdminState(Mode.MAINT, "down", agent_check.percent, agent_check.maxconn, disabled or "disable file")
