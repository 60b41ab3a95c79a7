"""The programs beside lbnode: whether they are installed and new enough, whether they run, and with which
configuration. PURE."""

from dataclasses import dataclass

from lbnode.doctor.finding import Finding
from lbnode.resources import Running

Version = tuple[int, int]


@dataclass(frozen=True)
class Needs:
    """`oldest` that can work at all, and `tested` from which on it is known to."""

    label: str
    install: str
    oldest: Version
    tested: Version


NEEDS = {
    # `.if feature(...)` and idle-close-on-response came with 2.4; Debian 12 has 2.6.
    "haproxy": Needs("HAProxy", "apt install haproxy", (2, 4), (2, 6)),
    # 4.2 is Debian's; 5.0 is what comes with lbnode.
    "exabgp": Needs("ExaBGP", "pip install 'exabgp>=5.0.10,<6' beside lbnode", (4, 2), (4, 2)),
}


def installed(program: str, version: Version | None) -> Finding:
    """`version` is None when the program is not installed."""
    needs = NEEDS[program]
    label = f"{program} version"
    if version is None:
        return Finding(label, "fail", "not installed", needs.install)
    seen = f"{needs.label} {_dotted(version)}"
    if version < needs.oldest:
        return Finding(label, "fail", f"{seen}, needs {_dotted(needs.oldest)}", needs.install)
    if version < needs.tested:
        return Finding(label, "warn", f"{seen}, tested from {_dotted(needs.tested)} on", needs.install)
    return Finding(label, "ok", seen)


def runs(wanted: Running, actual: Running | None, apply: str) -> Finding:
    """`actual` is None when the program does not run or its configuration is not ours."""
    label, unit = f"{wanted.program} runs", f"lbnode-{wanted.program}"
    if actual is None:
        mend = f"{apply}, then systemctl start {unit}; why it stopped: journalctl -u {unit}"
        return Finding(label, "fail", "it does not run", mend)
    if actual.config != wanted.config:
        now = f"configuration {actual.config}" if actual.config else "a configuration that is not lbnode's"
        return Finding(label, "warn", f"with {now}, the cluster file says {wanted.config}", apply)
    return Finding(label, "ok", f"with configuration {actual.config}")


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
