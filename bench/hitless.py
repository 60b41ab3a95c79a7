"""What do clients see when HAProxy's servers change 50 times, and its configuration 10 times?

300 requests per second, half of them on kept connections: lbnode's own passes beside the same 60 changes as plain
reloads (`haproxy -sf`), with the same file but for what lbnode's template does about kept connections.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import proxy
from bench.figure import OURS, Figure
from lbnode.config.model import Cluster

PER_S, CHANGES, EVERY = 300, 60, 6
PACE_S = 0.25
PLAIN = "haproxy -sf"


def measure_here(rounds: int) -> list[Figure]:
    """A round is one run of each side: some 35 s."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for side, run in ((OURS, _ours), (PLAIN, _plain)):
            for name, value in run().items():
                found.setdefault(name, {}).setdefault(side, []).append(value)
    what = f"{PER_S} requests/s, {CHANGES - CHANGES // EVERY} changes of servers and {CHANGES // EVERY} others: "
    units = {"reloads": "count", "failed requests": "count", "kept connections closed without notice": "count"}
    return [Figure(what + name, units.get(name, "ms"), values, where="host") for name, values in found.items()]


def _clusters(site: proxy.Site) -> Iterator[Cluster]:
    """Servers come, change weights, and go; every EVERY-th time a timeout changes too."""
    servers = {1: 100, 2: 100}
    timeout = 60.0
    for number in range(CHANGES):
        if number % EVERY == EVERY - 1:
            timeout += 1
        elif number % 3 == 0:
            servers = {**servers, 3 + number: 100}
        elif number % 3 == 1:
            servers = {**servers, 1: 50 + number}
        else:
            servers = {key: weight for key, weight in servers.items() if key in (1, 2)}
        yield site.cluster(servers, timeout)


@contextmanager
def _load(site: proxy.Site) -> Iterator[Callable[[], dict[str, float]]]:
    argv = [sys.executable, "-m", "bench.load", "127.2.0.1", str(site.vip), str(PER_S)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(2)  # until it has its kept connections

        def ended() -> dict[str, float]:
            told = json.loads(process.communicate()[0])
            counts: Counter[str] = Counter(told["counts"])
            failed = sum(number for name, number in counts.items() if name.startswith("failed"))
            print(f"{told}", file=sys.stderr)
            closed = counts["closed without notice"]
            return {
                "failed requests": failed,
                "kept connections closed without notice": closed,
                "99th percentile of an answer": told["p99"],
            }

        yield ended


def _ours() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="lb") as name:
        site = proxy.Site(Path(name))
        with proxy.web_server(site.web), site.running(site.cluster({1: 100, 2: 100})), _load(site) as ended:
            reloads = 0
            for cluster in _clusters(site):
                begin = time.monotonic()
                reloads += any("reload" in way for way in site.make(cluster))
                time.sleep(max(0.0, PACE_S - (time.monotonic() - begin)))
            return {"reloads": reloads, **ended()}


def _without_care(template: str) -> str:
    """What a file has that nobody has thought about."""
    return template.replace("    option idle-close-on-response\n", "")


def _plain() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="lb") as name:
        site = proxy.Site(Path(name), template=_without_care)
        cluster = site.cluster({1: 100, 2: 100})
        site.write(cluster)
        pid = site.folder / "pid"
        argv = ["haproxy", "-D", "-f", str(site.paths.haproxy_config), "-p", str(pid)]
        with proxy.web_server(site.web):
            subprocess.run(argv, check=True, capture_output=True)
            try:
                proxy.wait(lambda: proxy.listens(site.vip, "127.2.0.1"))
                with _load(site) as ended:
                    for changed in _clusters(site):
                        begin = time.monotonic()
                        site.paths.haproxy_config.write_text(site.text(changed))
                        subprocess.run([*argv, "-sf", pid.read_text().strip()], check=True, capture_output=True)
                        time.sleep(max(0.0, PACE_S - (time.monotonic() - begin)))
                    return {"reloads": CHANGES, **ended()}
            finally:
                subprocess.run(["kill", *pid.read_text().split()], check=False)
