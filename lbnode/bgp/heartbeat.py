"""The agent's sign of life, for the relay: a file beside `wanted`, with the dead-man rule in it. Standard library only.

The agent writes it again and again, with the moment (CLOCK_MONOTONIC, which all processes share and nobody can set)
and with what is to happen when it writes no more. It takes it away when it ends in good order, and `lbnode apply` does
so when no agent runs: without the file nobody has to be alive (docs/adr/0007).
"""

import json
import time
from pathlib import Path
from typing import Literal, NamedTuple, get_args

FILE = "agent.json"
Then = Literal["keep", "withdraw"]


class Beat(NamedTuple):
    """`at`: when the agent was last known to be well; `after_s`: how long it may be silent; `then`: and what then."""

    at: float
    after_s: float
    then: Then


def text(beat: Beat) -> str:
    """The content of the file."""
    return json.dumps(beat._asdict()) + "\n"


def parse(content: str) -> Beat:
    """Raises ValueError when the content is not what `text` makes."""
    try:
        data = json.loads(content)
        beat = Beat(float(data["at"]), float(data["after_s"]), data["then"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if beat.then not in get_args(Then) or not beat.after_s > 0:
        raise ValueError(f"{beat}")
    return beat


class DeadMan:
    """The relay's end: whether the agent has been silent for longer than it may be.

    An order that somebody writes is a sign of life too, so that an agent that has come back is followed before it has
    said that it is well.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._beat: Beat | None = None
        self._ordered = float("-inf")
        self.problem = ""

    def read(self) -> None:
        """What the file says now. One that is not understood changes nothing."""
        try:
            self._beat = parse(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._beat = None
        except (OSError, ValueError) as error:
            self.problem = f"cannot read {self._file}: {error}"
            return
        self.problem = ""

    def ordered(self, now: float) -> None:
        """Somebody has written orders."""
        self._ordered = now

    def left_s(self, now: float) -> float | None:
        """Seconds until the agent counts as gone, 0 when it does; None when nobody has to be alive. Reads the file
        when the time is over: a relay that was stopped for a while must not take its own absence for the agent's."""
        if self._left_s(now) == 0:
            self.read()
        return self._left_s(now)

    def _left_s(self, now: float) -> float | None:
        if self._beat is None:
            return None
        return max(0.0, max(min(self._beat.at, now), self._ordered) + self._beat.after_s - now)

    @property
    def then(self) -> Then:
        return self._beat.then if self._beat else "keep"

    def words(self) -> str:
        """What the rule says, and does, about an agent that is gone."""
        after = self._beat.after_s if self._beat else 0
        what = "everything is withdrawn" if self.then == "withdraw" else "what is announced stays"
        return f"the agent has given no sign of life for {after:g} s: {what} (bgp.dead_man)"


def write(file: Path, beat: Beat) -> None:
    """By rename; the relay, which runs as another user, may read it. Raises OSError."""
    scratch = file.with_name(f".{file.name}.new")
    scratch.write_text(text(beat), encoding="utf-8")
    scratch.chmod(0o644)
    scratch.replace(file)


def now() -> float:
    """The clock of `Beat.at`, in seconds."""
    return time.monotonic()
