"""The haproxy program: which version is installed, what it says about a configuration, how a supervisor starts it.

lbnode supervises nothing: systemd, or the lab, runs `command()`; reloads go through the master's socket
(`lbnode.haproxy.runtime`).
"""

import json
import re
import shutil
import subprocess
from contextlib import suppress
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any

from lbnode.config.model import Cluster
from lbnode.errors import LbnodeError, Missing
from lbnode.haproxy import stats, tables
from lbnode.haproxy.runtime import Runtime
from lbnode.paths import Paths
from lbnode.roles.inputs import ProxyFacts

CHECK_TIMEOUT_S = 60.0
"""Checking 10,000 servers in one backend takes 0.3 s; only a name that does not resolve takes long."""

NOT_INSTALLED = "cannot run haproxy: it is not installed (apt install haproxy)"

_BOILERPLATE = ("Error(s) found in configuration file", "Fatal errors found in configuration")
_LEVEL = re.compile(r"\[(ALERT|WARNING|NOTICE)\]\s*(?:\S+\s*)?\(\d+\)\s*:\s*(?:config\s*:\s*)*(.*)")


def version() -> tuple[int, int]:
    """(major, minor) of the haproxy on PATH, which is asked once and again when it is another file: an agent outlives
    an upgrade. Raises Missing when there is none."""
    found = shutil.which("haproxy")
    if found is None:
        raise Missing(NOT_INSTALLED)
    file = Path(found).stat()
    return _version_of(found, file.st_ino, file.st_mtime_ns)


@lru_cache(maxsize=8)
def _version_of(path: str, _inode: int, _modified_ns: int) -> tuple[int, int]:
    said = _run([path, "-v"]).stdout
    match = re.search(r"version (\d+)\.(\d+)", said)
    if match is None:
        raise LbnodeError(f"cannot read HAProxy's version from {said.strip()!r}")
    return int(match[1]), int(match[2])


def check(path: Path) -> str:
    """What `haproxy -c` has against a file: its errors, one a line; empty when it accepts the file.

    It parses and resolves but does not bind, so VIPs need not be there yet. Raises Missing without haproxy.
    """
    done = _run(["haproxy", "-c", "-f", str(path)])
    if done.returncode == 0:
        return ""
    return errors(done.stderr + done.stdout) or f"haproxy -c exits with {done.returncode}"


def errors(output: str) -> str:
    """The errors in HAProxy's start-up messages, without process ids, warnings and closing words."""
    kept: list[str] = []
    wanted = False
    for line in output.splitlines():
        match = _LEVEL.match(line)
        if match:
            wanted = match[1] == "ALERT" and not match[2].startswith(_BOILERPLATE)
        if wanted and line.strip():
            kept.append(match[2] if match else line)
    return "\n".join(kept)


def facts(cluster: Cluster, paths: Paths) -> ProxyFacts:
    """What the files of this node say: certificates, and what HAProxy was loaded with. What cannot be read is left out:
    `haproxy -c` says it better."""
    certificates: dict[str, str] = {}
    for path in tables.certificates(cluster):
        with suppress(OSError, ValueError):
            certificates[path] = _fingerprint(Path(path).read_text(encoding="ascii"))
    loaded: dict[str, str] = {}
    with suppress(OSError, ValueError):
        loaded = json.loads(paths.haproxy_parts.read_text(encoding="utf-8"))
    return ProxyFacts(certificates, loaded)


def seen(paths: Paths) -> dict[str, Any] | None:
    """What `lbnode status` shows of a running HAProxy; None when it does not answer."""
    try:
        processes = Runtime(paths.haproxy_master_socket).processes()
        return stats.summary(Runtime(paths.haproxy_socket).stat(), processes)
    except LbnodeError:
        return None


def _fingerprint(pem: str) -> str:
    """Of the first certificate, as HAProxy shows it. Raises ValueError for what is none."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = begin + pem.split(begin, 1)[-1].split(end)[0] + end
    return sha1(PEM_cert_to_DER_cert(first), usedforsecurity=False).hexdigest()


def prepare(paths: Paths) -> None:
    """Makes the directories that HAProxy needs, before it is started, and removes the server states of an earlier
    life: on a cold start they would win over what is true now (haproxy issue 76)."""
    paths.haproxy_socket.parent.mkdir(parents=True, exist_ok=True)
    paths.haproxy_config.parent.mkdir(parents=True, exist_ok=True)
    paths.haproxy_state_file.unlink(missing_ok=True)


def command(paths: Paths, notify: bool = False) -> list[str]:
    """What a supervisor runs, in the foreground. `notify` is for a systemd unit with Type=notify."""
    return [
        "haproxy",
        "-Ws" if notify else "-W",
        "-S",
        f"{paths.haproxy_master_socket},mode,600",
        "-f",
        str(paths.haproxy_config),
    ]


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise Missing(NOT_INSTALLED) from error
    except subprocess.TimeoutExpired as error:
        raise LbnodeError(f"cannot run {' '.join(argv)}: no answer in {CHECK_TIMEOUT_S:.0f} s") from error
