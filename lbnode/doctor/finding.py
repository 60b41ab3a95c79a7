"""A finding: what one check saw, and how to mend it. PURE."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    """`fail`: traffic is lost, or the role cannot work. `warn`: it works, but not as well or not for long.
    `unknown`: what was needed to tell could not be read. `mend` is empty when nothing needs mending."""

    name: str
    verdict: Verdict
    seen: str
    mend: str = ""

    def __str__(self) -> str:
        """One line, and below it the mend when there is one."""
        line = f"{self.verdict.upper() if self.verdict == 'fail' else self.verdict:<7} {self.name}: {self.seen}"
        return f"{line}\n        mend: {self.mend}" if self.mend else line

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "verdict": self.verdict, "seen": self.seen, "mend": self.mend}


def persistent(name: str, value: str) -> str:
    """How to give a kernel setting that lbnode does not manage a value that survives a reboot."""
    return f"sysctl -w {name}={value}, and the same line in /etc/sysctl.d/"
