"""What the tests on a real kernel share: a fresh network namespace each."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.lab import libc


@pytest.fixture
def netns() -> Iterator[None]:
    """Puts the test, and the threads and processes it starts, into a network namespace of its own; loopback is up."""
    from pyroute2 import IPRoute

    old = os.open(f"/proc/{os.getpid()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.unshare(libc.CLONE_NEWNET)
        try:
            with IPRoute() as route:
                route.link("set", ifname="lo", state="up")
            assert Path("/proc/sys/net/ipv4/conf/lo").is_dir()
            yield
        finally:
            libc.setns(old, libc.CLONE_NEWNET)
    finally:
        os.close(old)
