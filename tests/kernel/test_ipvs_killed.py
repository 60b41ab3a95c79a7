"""A run that is killed in the middle: the next one makes everything right, and nobody else's rows are touched.

SIGKILL comes at 50 random moments of a run that creates, re-orders, weighs anew, fails and deletes: before or after one
of the system calls with which it changes or reads something.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lbnode.drivers import Observed, Result
from lbnode.impact import table_states
from lbnode.ipvs import netlink
from lbnode.ipvs.driver import IpvsDriver
from lbnode.net.policy import PolicyDriver
from lbnode.net.sysctl import SysctlDriver
from lbnode.paths import Paths
from lbnode.plan import TABLE_ROWS, Change
from lbnode.reconcile import run
from lbnode.resources import (
    Announcement,
    Destination,
    DestinationOrder,
    LocalRoute,
    Row,
    ServiceKey,
    Sysctl,
    VirtualService,
)
from lbnode.roles.inputs import Desired
from lbnode.roles.l4 import FAIL_RULES

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

KILLS = 50
ANNOUNCED = Announcement("198.51.100.1/32", "192.0.2.129", "192.0.2.254")
SETTINGS = (Sysctl("net.ipv4.vs.expire_nodest_conn", "0"), *FAIL_RULES, ANNOUNCED)
FOREIGN = """\
-A -t 198.51.100.9:80 -s wlc -p 300
-a -t 198.51.100.9:80 -r 192.0.2.1:8080 -m -w 7
-a -t 198.51.100.9:80 -r 192.0.2.2:8080 -m -w 0
-A -f 9 -s rr
-a -f 9 -r 192.0.2.1:0 -g -w 1
"""


CALLS = {"send", "sendto", "sendmsg", "recv", "recvfrom_into", "recvmsg", "rename", "replace", "write"}


class Announcer:
    """Tells routers what they know already: so one VIP is in clients' reach, and the others are not. It is the last to
    be asked, and what is done to the kernel comes between the first and the second time."""

    kinds: tuple[type[Row], ...] = (Announcement,)

    def __init__(self) -> None:
        self.asked = 0

    def observe(self, wanted: Sequence[Row]) -> Observed:
        self.asked += 1
        return Observed((ANNOUNCED,))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        return [Result(change) for change in changes]


def service(key: ServiceKey, names: Sequence[str], weights: dict[str, int], **settings: object) -> list[Row]:
    made = [Destination(key, name, weights.get(name, 100), 100, serial) for serial, name in enumerate(names)]
    return [VirtualService(key, **settings), *made, DestinationOrder(key, tuple(names))]  # type: ignore[arg-type]


def servers(*numbers: int) -> list[str]:
    return [f"192.0.2.{number}" for number in numbers]


LIVE, QUIET = ServiceKey("198.51.100.1", "tcp", 80), ServiceKey("198.51.100.2", "tcp", 80)
COMES, GOES = ServiceKey("198.51.100.3", "udp", 53), ServiceKey("198.51.100.4", "udp", 53)
MARK = ServiceKey.of_mark(7, 4)
BEFORE = Desired(
    (
        *SETTINGS,
        *service(LIVE, servers(*range(1, 13)), {"192.0.2.3": 0}),
        *service(QUIET, servers(*range(1, 13)), {}),
        *service(GOES, servers(*range(1, 7)), {}),
        *service(MARK, servers(1, 2), {}, scheduler="rr", flags=()),
        LocalRoute("192.0.2.3", "192.0.2.254"),
    )
)
SHUFFLED = servers(5, 13, 1, 3, 2, 14, 8, 7, 6, 12, 11)
AFTER = Desired(
    (
        *SETTINGS,
        *service(LIVE, SHUFFLED, {"192.0.2.5": 0, "192.0.2.1": 50}),
        *service(QUIET, SHUFFLED, {"192.0.2.5": 0}, flags=("mh-port", "persistent"), timeout_s=300),
        *service(COMES, servers(*range(20, 0, -1)), {"192.0.2.5": 0}),
        *service(MARK, servers(2, 3, 4), {}, scheduler="wrr", flags=()),
        LocalRoute("192.0.2.5", "192.0.2.254"),
    )
)


def drivers(run_directory: Path) -> tuple[SysctlDriver, PolicyDriver, IpvsDriver, Announcer]:
    ipvs = IpvsDriver(Paths(run=run_directory))
    return SysctlDriver(), PolicyDriver(ipvs.renew), ipvs, Announcer()


def make(desired: Desired, run_directory: Path) -> None:
    """One run, by a process that knows nothing but the ledger; after it, nothing is left to do."""
    assert run(desired, drivers(run_directory), force=True).errors == []


def killed_run(run_directory: Path, at: int) -> int:
    """A run of a process of its own, which is killed before the call with that number. Returns how many it came to."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        made = drivers(run_directory)
        calls = 0

        def counting(frame: FrameType, event: str, function: Any) -> None:
            nonlocal calls
            if event == "c_call" and made[-1].asked == 1 and function.__name__ in CALLS:
                if calls == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1

        with suppress(BaseException):
            netlink.BATCH_BYTES = 300  # a message or two: so that there are many moments in between
            sys.setprofile(counting)
            run(AFTER, made, force=True)
            sys.setprofile(None)
            os.write(writes, str(calls).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as result:
        told = result.read()
    os.waitpid(child, 0)
    return int(told or at)


def standing() -> list[str]:
    """The kernel's table in its order, others' rows as well."""
    return Path("/proc/net/ip_vs").read_text().splitlines()


def saved() -> list[str]:
    return subprocess.run(["ipvsadm", "-Sn"], check=True, capture_output=True, text=True).stdout.splitlines()


def tables(run_directory: Path, desired: Desired) -> dict[str, bool]:
    """Whether each service's Maglev table is the wanted one."""
    wanted = [row for row in desired.rows if isinstance(row, TABLE_ROWS)]
    observed = IpvsDriver(Paths(run=run_directory)).observe(wanted)
    assert set(observed.rows) == set(wanted)
    return {str(state.service): state.equal for state in table_states(observed.rows, wanted)}


def test_whatever_moment_a_run_is_killed_the_next_one_converges(tmp_path: Path) -> None:
    for command in (
        ["link", "add", "wire", "type", "dummy"],
        ["link", "set", "wire", "up"],
        ["address", "add", "192.0.2.254/24", "dev", "wire"],
    ):
        subprocess.run(["ip", *command], check=True)
    subprocess.run(["ipvsadm", "--restore"], input=FOREIGN, check=True, text=True)
    foreign = saved()
    make(BEFORE, tmp_path)
    before = standing()
    calls = killed_run(tmp_path, -1)
    assert calls > 100
    make(AFTER, tmp_path)
    after = standing()
    dice = random.Random(50)  # noqa: S311
    torn = 0
    for _ in range(KILLS):
        make(BEFORE, tmp_path)
        assert standing() == before
        killed_run(tmp_path, dice.randrange(calls))
        torn += standing() not in (before, after)
        make(AFTER, tmp_path)
        assert standing() == after
        assert all(tables(tmp_path, AFTER).values())
    assert torn >= KILLS // 2
    assert set(foreign) <= set(saved())
    make(Desired(SETTINGS), tmp_path)
    assert saved() == foreign
