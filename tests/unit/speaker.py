"""What ExaBGP is to its relay: the other end of a pipe. The relay is the real one, in a process of its own.

And what tests of the relay share: the driver, and one pass of apply by it.
"""

import contextlib
import json
import subprocess
import threading
from ipaddress import ip_network

import pytest

from lbnode.bgp import exabgp
from lbnode.bgp.driver import ExabgpDriver
from lbnode.bgp.guard import Guard
from lbnode.paths import Paths
from lbnode.plan import diff
from lbnode.resources import Announcement, Running

ONE = "192.0.2.1"
FIRST = Announcement("198.51.100.1/32", ONE, "192.0.2.11")
RUNS = Running("exabgp", "c1")


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path / "etc", tmp_path / "run")


@pytest.fixture
def driver(paths):
    return ExabgpDriver(paths, wait_s=10)


def want(driver, *rows):
    """One pass of apply; returns what failed."""
    plan = diff(driver.observe(rows).rows, rows)
    return [result.error for result in driver.apply(plan.changes) if result.error]


class Speaker:
    """Starts the relay and answers it as ExaBGP does; `routes` is what it would announce: (peer, prefix) -> command.

    `lost_reloads`: so many reloads are answered and forgotten. `hold`: while it is taken, nothing is answered. `bad`: a
    prefix that it refuses.
    """

    def __init__(self, paths: Paths, peers: dict[str, str], digest: str = "c1") -> None:
        self.paths, self.peers, self.digest = paths, peers, digest
        self.next_digest = digest
        self.routes: dict[tuple[str, str], str] = {}
        self.commands: list[str] = []
        self.lost_reloads = 0
        self.bad = ""
        self.restarts = False
        self.hold = threading.Lock()
        self.relay: subprocess.Popen[str] | None = None
        self.thread = threading.Thread()

    def start(self) -> None:
        if not self.paths.announceable.exists():
            self.permit("198.51.0.0/16")
        argv = [*exabgp.RELAY, *map(str, (self.paths.bgp_wanted, self.paths.bgp_told, self.paths.announceable))]
        self.relay = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def permit(self, *networks: str) -> None:
        self.paths.announceable.parent.mkdir(parents=True, exist_ok=True)
        self.paths.announceable.write_text(Guard(map(ip_network, networks)).text)

    def stop(self) -> int:
        """The end of ExaBGP: its pipes close. Returns how the relay ended."""
        if self.relay is None or self.relay.stdin is None or self.relay.stdout is None:
            return 0
        with contextlib.suppress(BrokenPipeError):
            self.relay.stdin.close()
        code = self.relay.wait(10)
        self.thread.join(10)
        self.relay.stdout.close()
        self.relay = None
        return code

    def say(self, *lines: str) -> None:
        assert self.relay
        assert self.relay.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.relay.stdin.write("".join(f"{line}\n" for line in lines))

    def say_state(self, peer: str, state: str, reason: str = "") -> None:
        neighbor = {"address": {"local": "192.0.2.11", "peer": peer}, "state": state, "reason": reason}
        self.say(json.dumps({"exabgp": "5.0.0", "type": "state", "neighbor": neighbor}))

    def told(self) -> dict:
        try:
            return json.loads(self.paths.bgp_told.read_text())
        except FileNotFoundError:
            return {}

    def _serve(self) -> None:
        assert self.relay
        assert self.relay.stdout
        for line in self.relay.stdout:
            self.commands.append(line.rstrip("\n"))
            with self.hold:
                self.say(self._obey(line.split()))

    def _obey(self, command: list[str]) -> str:
        match command:
            case ["show", "neighbor", "configuration"]:
                for peer in self.peers:
                    settings = [f'description "lbnode config {self.digest}"', "local-as 65001", "peer-as 65000"]
                    settings += ["manual-eor true"] if self.restarts else []
                    self.say(f"neighbor {peer} {{", *(f"\t{setting};" for setting in settings), "}")
            case ["show", "neighbor", "summary"]:
                self.say("Peer  AS  up/down state | #sent #recvd")
                self.say(*(f"{peer} 65000 0:00:03 {state} 1 1" for peer, state in self.peers.items()))
            case ["show", "adj-rib", "out"]:
                self.say(*(f"{p} ipv4 unicast {prefix} next-hop 192.0.2.11" for p, prefix in self.routes))
            case ["neighbor", peer, *_] if peer in self.peers:
                return self._told(command)
            case ["reload"]:
                self.say("reload in progress")
                if self.lost_reloads:
                    self.lost_reloads -= 1
                else:
                    self.digest = self.next_digest
            case _:
                return "error"
        return "done"

    def _told(self, command: list[str]) -> str:
        match command:
            case ["neighbor", peer, "announce", "route", prefix, *_] if prefix != self.bad:
                self.routes[peer, prefix] = " ".join(command)
            case ["neighbor", peer, "withdraw", "route", prefix]:
                self.routes.pop((peer, prefix), None)
            case ["neighbor", peer, verb, "attributes", *rest] if self.bad not in rest:
                at = rest.index("nlri")
                for prefix in rest[at + 1 :]:
                    self.routes.pop((peer, prefix), None)
                    if verb == "announce":
                        self.routes[peer, prefix] = " ".join(["neighbor", peer, "announce route", prefix, *rest[:at]])
            case ["neighbor", _, "announce", "eor", "ipv4", "unicast"]:
                pass
            case _:
                return "error"
        return "done"
