"""1,000 and 10,000 servers: what does one change take? lbnode's pass beside plain rendering, checking and reloading.

The change is one server more. lbnode renders, validates, writes, asks the running HAProxy what it holds, and adds the
server through its socket; the other renders, validates, writes and reloads, and waits for the new process.
"""

import tempfile
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
        with site.running(small):
            note("resident memory of HAProxy", OURS, _resident(site))
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
    units = {"resident memory of HAProxy": "MB"}
    text = f"{servers:,} servers: "
    return [Figure(text + what, units.get(what, "ms"), sides, where="host") for what, sides in took.items()]


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


def _resident(site: proxy.Site) -> float:
    pid = site.runtime.info()["Pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
