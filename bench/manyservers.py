"""1,000 and 10,000 servers: what does one change take? lbnode's pass beside plain rendering, checking and reloading.

The change is one server more, and one less. lbnode renders, validates, writes, asks the running HAProxy what it holds,
adds the server through its socket, and asks again; the other renders, validates, writes and reloads, and waits for the
new process. HAProxy's memory is that of all its processes: after a reload there are two until the old one has ended.
"""

import gc
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import clock, proxy
from bench.figure import OURS, Figure
from lbnode.config.model import Cluster
from lbnode.haproxy import program, statefile
from lbnode.haproxy.reload import reload

PER_POOL = 10
PLAIN = "plain render and reload"


def measure_here(rounds: int) -> list[Figure]:
    return [figure for servers in (1000, 10_000) for figure in _figures(servers, rounds)]


def _figures(servers: int, rounds: int) -> list[Figure]:
    took: dict[str, dict[str, list[float]]] = {}

    def note(what: str, side: str, value: float) -> None:
        took.setdefault(what, {}).setdefault(side, []).append(value)

    with tempfile.TemporaryDirectory(prefix="lb") as name:
        site = proxy.Site(Path(name), per_pool=PER_POOL)
        few = dict.fromkeys(range(servers), 100)
        more = {**few, servers: 100}
        small, large = site.cluster(few, check=False), site.cluster(more, check=False)
        with site.running(small) as master:
            note("memory of HAProxy", OURS, _highest(master, partial(_ours, site, large)))
            note("memory of lbnode in a pass", OURS, _of_lbnode(partial(_ours, site, small)))
            note("memory of HAProxy", PLAIN, _highest(master, partial(_plain, site, large)))
            _plain(site, small)
            for _ in range(rounds):
                note("render", OURS, clock.milliseconds(partial(site.text, large)))
                note(
                    "validate (haproxy -c)", OURS, clock.milliseconds(partial(program.check, site.paths.haproxy_config))
                )
                for cluster in (large, small):
                    note("one change, the whole pass", OURS, clock.milliseconds(partial(_ours, site, cluster)))
                note("a pass with nothing to do", OURS, clock.milliseconds(partial(site.make, small)))
                for cluster in (large, small):
                    note("one change, the whole pass", PLAIN, clock.milliseconds(partial(_plain, site, cluster)))
    text = f"{servers:,} servers: "
    return [
        Figure(text + what, "MB" if "memory" in what else "ms", sides, where="host") for what, sides in took.items()
    ]


def _ours(site: proxy.Site, cluster: Cluster) -> None:
    ways = site.make(cluster)
    if not ways or any("reload" in way for way in ways):
        raise RuntimeError(f"cannot measure: {ways}")


def _plain(site: proxy.Site, cluster: Cluster) -> None:
    fresh = site.paths.haproxy_config.with_suffix(".plain")
    fresh.write_text(site.text(cluster))
    if complaint := program.check(fresh):
        raise RuntimeError(complaint)
    fresh.replace(site.paths.haproxy_config)
    site.paths.haproxy_state_file.write_text(statefile.content([], ""))
    reload(site.paths)


def _highest(master: int, work: Callable[[], object]) -> float:
    """What all processes of HAProxy have in memory at most while it is changed, what they share counted once (Pss)."""
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            seen.append(sum(map(_resident, [str(master), *workers])))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        work()
    finally:
        done.set()
        watching.join()
    return max(seen)


def _of_lbnode(work: Callable[[], object]) -> float:
    """This process at its highest, which proc(5) counts from here on (clear_refs, 5)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _megabytes("/proc/self/status", "VmHWM:")


def _resident(pid: str) -> float:
    try:
        return _megabytes(f"/proc/{pid}/smaps_rollup", "Pss:")
    except (OSError, StopIteration):  # it has ended
        return 0


def _megabytes(file: str, name: str) -> float:
    lines = Path(file).read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
