"""How fast lbnode programs and reads IPVS, against ipvsadm in the same run: 100 services of 100 destinations each.

Needs root and a kernel with ip_vs; works in a network namespace of its own:

    python -m lbnode.lab.kernel -- python -m bench.ipvs [ROUNDS]
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lbnode.errors import ApplyFailed
from lbnode.ipvs.driver import IpvsDriver
from lbnode.lab import libc
from lbnode.paths import Paths
from lbnode.plan import Plan, diff
from lbnode.resources import Destination, DestinationOrder, Row, ServiceKey, VirtualService

SERVICES, DESTINATIONS = 100, 100


def wanted(scheduler: str) -> list[Row]:
    flags = ("mh-fallback", "mh-port") if scheduler == "mh" else ()
    addresses = tuple(f"192.0.2.{number}" for number in range(1, DESTINATIONS + 1))
    rows: list[Row] = []
    for number in range(1, SERVICES + 1):
        key = ServiceKey(f"198.51.100.{number}", "tcp", 443)
        rows += [VirtualService(key, scheduler, flags), DestinationOrder(key, addresses)]
        rows += [Destination(key, address, 100, 100, serial) for serial, address in enumerate(addresses)]
    return rows


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def apply(driver: IpvsDriver, plan: Plan) -> None:
    errors = [result.error for result in driver.apply(plan.changes) if result.error]
    if errors:
        raise ApplyFailed(f"cannot measure: {len(errors)} changes failed, the first: {errors[0]}")


def ipvsadm(*argv: str, text: str = "") -> str:
    return subprocess.run(("ipvsadm", *argv), input=text, check=True, capture_output=True, text=True).stdout


def fresh() -> None:
    """Enters a new network namespace: the kernel searches destinations deleted in the last two minutes at every add
    (ip_vs_ctl.c, ip_vs_trash_get_dest), so neither side may find the other's."""
    libc.unshare(libc.CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def measure(scheduler: str, run: Path) -> dict[str, tuple[float, float]]:
    """What -> (lbnode's, ipvsadm's) milliseconds. Each side starts from nothing, and ends with the same rules."""
    driver, rows = IpvsDriver(Paths(run=run)), wanted(scheduler)
    fresh()
    plan = diff(driver.observe(rows).rows, rows)
    program = milliseconds(lambda: apply(driver, plan))
    observe = milliseconds(lambda: driver.observe(rows))
    save = milliseconds(lambda: ipvsadm("-Sn"))
    rules = ipvsadm("-Sn")
    fresh()
    restore = milliseconds(lambda: ipvsadm("--restore", text=rules))
    whole_pass = milliseconds(lambda: diff(driver.observe(rows).rows, rows))
    if plan := diff(driver.observe(rows).rows, rows):
        raise ApplyFailed(f"cannot compare: ipvsadm made something else: {plan.changes[0]}")
    return {
        f"program under {scheduler}": (program, restore),
        f"read ({scheduler})": (observe, save),
        f"read and compare ({scheduler})": (whole_pass, save),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{SERVICES} services x {DESTINATIONS} destinations, ms{'lbnode':>17}{'ipvsadm':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            for scheduler in ("mh", "rr"):
                for what, (ours, theirs) in measure(scheduler, Path(directory)).items():
                    print(f"{what:<38}{ours:12.0f}{theirs:12.0f}{theirs / ours:7.1f}x")


if __name__ == "__main__":
    main()
