"""A newer HAProxy than this Debian has: a later Debian's, with its libraries, in the user's cache and not installed.

    python tests/newer/haproxy.py trixie      prints the directory to put in front of PATH

Fetching needs no root, only a mirror, which is the one that apt is set up with. What is fetched runs through its own
dynamic loader, for it wants a newer C library than this machine's. A directory that is there is used as it is; without
it, the suite's HAProxy of the day is fetched.

    ~/.cache/lbnode/haproxy/trixie/bin/haproxy      as the program is called
                                   root/            what the packages hold
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
BESIDE = {"experimental": "sid"}
"""Suites that are not whole: the rest comes from another one."""


def directory(suite: str) -> Path:
    """Where its `haproxy` is. Raises CalledProcessError when it cannot be fetched, and what it says is on stderr."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(base, "lbnode", "haproxy", suite)
    if not (kept / "bin/haproxy").is_file():
        sys.stderr.write(f"fetching HAProxy of Debian {suite}, once, into {kept}\n")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=kept.parent) as name:
            _fetch(suite, Path(name, "packages"), Path(name, "whole/root"))
            _callable(Path(name, "whole"), kept)
            Path(name, "whole").rename(kept)
    return kept / "bin"


def _fetch(suite: str, work: Path, root: Path) -> None:
    """HAProxy and all that it depends on, as if nothing were installed."""
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    root.mkdir(parents=True)
    suites = [suite, *([BESIDE[suite]] if suite in BESIDE else [])]
    (work / "sources.list").write_text("".join(f"deb [signed-by={KEYS}] {_mirror()} {one} main\n" for one in suites))
    settings = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        # As root apt would give what it fetches to a user of its own, who cannot write here.
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    _said([*apt, "update"])
    _said([*apt, "install", "-y", "--download-only", "--no-install-recommends", "-t", suite, "haproxy"])
    for package in (work / "cache/archives").glob("*.deb"):
        _said(["dpkg-deb", "-x", str(package), str(root)])


def _callable(whole: Path, kept: Path) -> None:
    """A program of its name that can replace itself, as HAProxy's master does: by the name that it was called by."""
    (loader,) = _below(whole, "usr/lib*/ld-linux*.so.*")
    libraries = ":".join(str(kept / path) for path in _below(whole, "usr/lib/*-linux-gnu*"))
    words = [str(kept / loader), "--library-path", libraries]
    command = f'exec {shlex.join(words)} --argv0 "$0" {shlex.quote(str(kept / "root/usr/sbin/haproxy"))} "$@"\n'
    program = whole / "bin/haproxy"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{command}")
    program.chmod(0o755)


def _below(whole: Path, pattern: str) -> Iterator[Path]:
    return (path.relative_to(whole) for path in (whole / "root").glob(pattern))


def _mirror() -> str:
    """Debian's own, as this machine is set up to reach it."""
    said = _said(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"])
    found = [line.split()[2] for line in said.splitlines() if line.startswith("Debian Debian ")]
    if not found:
        sys.exit("cannot fetch HAProxy: apt knows no mirror of Debian (apt-get update)")
    return found[0]


def _said(argv: list[str]) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.stdout.write(f"{directory(sys.argv[1])}\n")
