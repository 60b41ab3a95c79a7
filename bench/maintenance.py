"""How long does it take until the health URI fails, when a node is taken out of service?

From the rename of the agent-check file to the first 503: lbnode's agent, which is told by inotify and pushes to
HAProxy's socket, beside the layout of socat as responder and agent checks every 2 seconds. And whether it answers 200
in between while HAProxy is reloaded.
"""

import http.client
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import yaml

from bench import proxy
from bench.figure import OURS, Figure
from lbnode.agent import control
from lbnode.errors import NotReady
from lbnode.haproxy import program

TIMES, RELOADS = 40, 20
SEED = "socat, agent-inter 2 s"


def measure_here(rounds: int) -> list[Figure]:  # noqa: ARG001 - one round has TIMES changes
    found = {OURS: _ours(), SEED: _seed()}
    what = f"maintenance file to failing health URI, {TIMES} times: "
    return [
        Figure(what + "median", "ms", {side: [median(took)] for side, (took, _) in found.items()}, 20, "host"),
        Figure(what + "worst", "ms", {side: [max(took)] for side, (took, _) in found.items()}, 0, "host"),
        Figure(
            f"{RELOADS} reloads during maintenance, some 1,000 probes: answers of 200",
            "count",
            {side: [wrong] for side, (_, wrong) in found.items()},
            where="host",
        ),
    ]


def status(port: int) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status


def _took(port: int, file: Path, word: str, wanted: int) -> float:
    """Milliseconds until the health URI says so."""
    fresh = file.with_suffix(".fresh")
    fresh.write_text(word + "\n")
    begin = time.monotonic()
    fresh.replace(file)
    while status(port) != wanted:
        if time.monotonic() - begin > 20:
            raise RuntimeError(f"cannot measure: the health URI does not become {wanted}")
    return 1000 * (time.monotonic() - begin)


def _changes(port: int, file: Path) -> list[float]:
    dice = random.Random(1)  # noqa: S311 - the same each time
    took = []
    for _ in range(TIMES):
        time.sleep(dice.uniform(0.1, 0.6))  # at any moment between two checks
        took.append(_took(port, file, "down", 503))
        _took(port, file, "up ready", 200)
    return took


def _wrong(port: int, reload: Callable[[int], None]) -> float:
    """How many of the answers are 200 while HAProxy is reloaded."""
    seen: Counter[int] = Counter()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                seen[status(port)] += 1
            except (OSError, http.client.HTTPException):
                seen[0] += 1
            time.sleep(0.002)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(RELOADS):
            reload(number)
            time.sleep(0.1)
    finally:
        done.set()
        asking.join()
    print(f"health URI during reloads: {dict(seen)}", file=sys.stderr)
    return float(seen[200])


@contextmanager
def _haproxy(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _ours() -> tuple[list[float], float]:
    with tempfile.TemporaryDirectory(prefix="lb") as name, proxy.web_server((site := proxy.Site(Path(name))).web):
        paths = site.paths
        paths.templates.mkdir(parents=True)
        (paths.templates / "haproxy.cfg.j2").write_text(next(iter(site.templates().sources.values())))

        def write(client_s: float) -> None:
            data = yaml.safe_load(site.cluster({1: 100, 2: 100}, client_s).model_dump_json(exclude_defaults=True))
            data["metrics"] = {"port": 0}
            fresh = paths.cluster_file.with_suffix(".new")
            fresh.write_text(yaml.safe_dump(data, sort_keys=False))
            fresh.replace(paths.cluster_file)

        write(60)
        site.write(site.cluster({1: 100, 2: 100}))
        argv = [sys.executable, "-m", "bench.l7agent", str(paths.etc), str(paths.run)]
        with _haproxy(program.command(paths)), subprocess.Popen(argv, stderr=subprocess.DEVNULL) as agent:
            try:
                proxy.wait(lambda: (control.ask(paths, "status") or {}).get("last_pass"))
                proxy.wait(lambda: status(site.health) == 200)
                took = _changes(site.health, paths.agent_check)
                _took(site.health, paths.agent_check, "down", 503)

                def reload(number: int) -> None:
                    before = _pid(site)
                    write(61 + number)
                    proxy.wait(lambda: _pid(site) not in ("", before))

                return took, _wrong(site.health, reload)
            finally:
                agent.send_signal(signal.SIGTERM)
                agent.wait(20)


def _pid(site: proxy.Site) -> str:
    try:
        return site.runtime.info().get("Pid", "")
    except NotReady:  # it is being replaced
        return ""


SEED_CONFIG = """
global
    stats socket {folder}/admin.sock level admin
defaults
    mode http
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    retries 3
frontend health
    bind 127.0.0.1:{health}
    monitor-uri /healthcheck
    monitor fail if {{ nbsrv(enabler) lt 1 }}
    http-request return status 404
backend web
    default-server check inter 2s
    server s1 127.1.0.2:{web}
    server s2 127.1.0.3:{web}
backend enabler
    server enabler 127.0.0.1:{agent} agent-check agent-port {agent} agent-inter 2s
"""


def _seed() -> tuple[list[float], float]:
    with tempfile.TemporaryDirectory(prefix="lb") as name, proxy.web_server((site := proxy.Site(Path(name))).web):
        file, config = Path(name, "agent-check"), Path(name, "haproxy.cfg")
        file.write_text("up ready\n")
        text = SEED_CONFIG.format(folder=name, health=site.health, web=site.web, agent=site.agent)
        config.write_text(text)
        socat = ["socat", f"TCP-LISTEN:{site.agent},bind=127.0.0.1,fork,reuseaddr", f"SYSTEM:cat {file}"]
        argv = ["haproxy", "-W", "-f", str(config)]
        with _haproxy(socat), _haproxy(argv) as master:
            proxy.wait(lambda: proxy.listens(site.health) and status(site.health) == 200)
            took = _changes(site.health, file)
            _took(site.health, file, "down", 503)
            return took, _wrong(site.health, lambda _number: os.kill(master.pid, signal.SIGUSR2))
