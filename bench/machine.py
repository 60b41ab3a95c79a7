"""What the measurements ran on: processor, memory, kernels, versions. No names and no paths."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lbnode


def describe() -> dict[str, Any]:
    """The machine that the bench was called on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor("model name"),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": kernel(),
    }


def kernel() -> str:
    """The running kernel: `Linux 6.1.176 (user-mode-linux, 1 processor)`. Builds have names of their own: left out."""
    release = re.match(r"[\d.]*\d", platform.release())
    mode = "user-mode-linux, 1 processor" if _processor("vendor_id") == "User Mode Linux" else "native"
    return f"Linux {release[0] if release else '?'} ({mode})"


def versions() -> dict[str, str]:
    return {
        "lbnode": lbnode.__version__,
        "Python": platform.python_version(),
        "ExaBGP": version("exabgp"),
        "ipvsadm": _package("ipvsadm"),
        "keepalived": _package("keepalived"),
    }


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _processor(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _package(name: str) -> str:
    """The version of a Debian package; "?" where there is none."""
    argv = ["dpkg-query", "-W", "-f=${Version}", name]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "?"
