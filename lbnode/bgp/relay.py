"""The relay: ExaBGP runs it as its API process, and it makes ExaBGP announce what the file `wanted` says.

Whatever `wanted` says, nothing is announced that is not in the list of the cluster file, which is read from a file of
its own: here it is looked at for the last time.

It holds no state of its own. What ExaBGP runs with, which peers it has and what it announces is asked of ExaBGP (at the
start and after each reload); what should be is read from `wanted` whenever inotify reports it. The difference is told,
and the outcome is left in `told`, by rename. A lock on `relay.lock` beside them says that it lives. What becomes of the
orders when the agent gives no sign of life any more is the agent's own word (`lbnode.bgp.heartbeat`).

It ends when its input ends, and for no other reason: an API process that dies six times within 64 seconds takes ExaBGP
and every route with it (reactor/api/processes.py, `_record_respawn`). It needs nothing but the standard library.
"""

import copy
import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":  # started as a script, by an interpreter that may not know where lbnode is
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lbnode.bgp import heartbeat, words
from lbnode.bgp.gate import Gate
from lbnode.bgp.inotify import Watch
from lbnode.bgp.pipe import Pipe
from lbnode.bgp.sessions import Sessions

BATCH = 10
"""Commands on their way at once: far below what a pipe holds, so that neither side can block the other."""
PUBLISH_S = 0.2
"""Seconds between two reports while there is still something to tell: one of 1,000 routes takes 10 ms."""
RETRY_S = 0.05, 10.0
"""A reload that did not take is tried again: after the first, then twice as long each time, up to the second."""
REFUSED = "its log says why; once it has refused one, only a restart helps: systemctl restart lbnode-exabgp"


class Relay:
    """One life between ExaBGP's pipe and the files."""

    def __init__(self, wanted: Path, told: Path, announceable: Path) -> None:
        self.wanted_file, self.told_file = wanted, told
        self.gate, self.sessions = Gate(announceable), Sessions()
        self.pipe = Pipe(self.sessions.heard)
        self.watch: Watch | None = None
        self.lock = -1
        self.since = round(time.time(), 3)
        self.wanted: words.Wanted | None = None
        self.settled = ""
        self.told: dict[words.Key, words.Route] = {}
        self.refused: dict[words.Key, str] = {}
        self.alone: set[words.Key] = set()
        self.config = ""
        self.deadman = heartbeat.DeadMan(wanted.with_name(heartbeat.FILE))
        self.gone_since: float | None = None
        self.problems = {"wanted": "", "reload": "", "agent": ""}
        self.retry_at, self.retry_s = 0.0, RETRY_S[0]
        self.published: object = None
        self.published_at = 0.0

    def run(self) -> None:
        """Until the end of the input, which raises EOFError."""
        self.learn()
        while True:
            if self.watch is None:
                self.attach()
            if self.reload_in() == 0:
                self.reload()
            self.look_for_agent()
            while self.tell():
                pass
            self.finish()
            self.publish()
            self.pipe.wait(1.0 if self.watch is None else self.next_in())

    def attach(self) -> None:
        """Takes the lock and begins to watch. Tried again later when the directory cannot be used, or another lives."""
        directory = self.wanted_file.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if self.lock < 0:
                self.lock = os.open(directory / words.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            while not take(self.lock):  # an observer holds it for a moment; or another relay follows the same file
                self.pipe.wait(0.02)
            self.told_file.unlink(missing_ok=True)
            self.watch = Watch(directory)
        except OSError as error:
            complain(f"cannot follow {self.wanted_file}: {error}")
            return
        self.pipe.add_reader(self.watch.fd, self.on_files)
        self.deadman.read()
        self.read_wanted()

    def detach(self) -> None:
        """Lets go of the directory; what is announced stays so."""
        if self.watch:
            self.pipe.remove_reader(self.watch.fd)
            self.watch.close()
        if self.lock >= 0:
            os.close(self.lock)
        self.watch, self.lock, self.published = None, -1, None

    def on_files(self) -> None:
        names = self.watch.names() if self.watch else set()
        if names is None or words.LOCK in names:
            self.detach()  # where the lock is not seen any more, nobody takes this relay for alive
            return
        if heartbeat.FILE in names:
            self.deadman.read()
        if self.wanted_file.name in names:
            self.deadman.ordered(heartbeat.now())
            self.read_wanted()

    def look_for_agent(self) -> None:
        """Whether it is gone; told when that changes."""
        gone = self.deadman.left_s(heartbeat.now()) == 0
        if gone and self.gone_since is None:
            self.gone_since = round(time.time(), 3)
            complain(self.deadman.words())
        elif not gone and self.gone_since is not None:
            self.gone_since = None
            complain("the agent has given a sign of life again")
        self.problems["agent"] = self.deadman.words() if gone else self.deadman.problem

    def next_in(self) -> float | None:
        """Seconds until there may be something to do by itself."""
        agent = self.deadman.left_s(heartbeat.now()) if self.gone_since is None else None
        times = [seconds for seconds in (self.reload_in(), agent) if seconds is not None]
        return min(times, default=None)

    @property
    def orders(self) -> Mapping[words.Key, words.Route]:
        """What should be announced: what `wanted` says and the list permits, or nothing where the agent is gone and has
        asked for that."""
        if self.wanted is None or (self.gone_since is not None and self.deadman.then == "withdraw"):
            return {}
        return self.gate.permitted

    def read_wanted(self) -> None:
        """A file that is not there yet, or not understood, changes nothing."""
        try:
            self.wanted = words.wanted_from(self.wanted_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self.problems["wanted"] = f"cannot read {self.wanted_file}: {error}; keeping what it said before"
            return
        self.problems["wanted"] = ""
        self.gate.read()
        self.gate.look(self.wanted.routes, self.told)
        self.forget_refusals()
        self.retry_at, self.retry_s = 0.0, RETRY_S[0]

    def forget_refusals(self) -> None:
        """What ExaBGP has refused may be right now."""
        self.refused.clear()
        self.alone.clear()

    def tell(self) -> bool:
        """Tells ExaBGP the difference, a batch at a time, as long as the orders stay; False when there was none."""
        if self.wanted is None:
            return False
        orders = self.orders
        steps = words.difference(self.told, orders, self.sessions.neighbors, self.refused, self.alone)
        for start in range(0, len(steps), BATCH):
            self.tell_batch(steps[start : start + BATCH])
            if time.monotonic() > self.published_at + PUBLISH_S:
                self.publish()
            if self.orders is not orders:
                break
        if not steps:
            self.settled = self.wanted.serial
        return bool(steps)

    def tell_batch(self, batch: list[words.Step]) -> None:
        """One command each. Of several prefixes that ExaBGP refuses together, each is told alone then."""
        for step, answer in zip(batch, self.pipe.ask([step.command for step in batch]), strict=True):
            if answer == "error" and len(step.routes) > 1:
                self.alone.update(step.routes)
                continue
            for key, route in step.routes.items():
                if route is None:
                    # An error to a withdrawal means that the peer is not there any more.
                    self.told.pop(key, None)
                elif answer != "error":
                    self.told[key] = route
                elif self.orders.get(key) == route:
                    why = "see its log" if key[0] in self.sessions.states else f"it has no neighbor {key[0]}"
                    self.refused[key] = f"ExaBGP refused it: {why}"

    def finish(self) -> None:
        """Lets peers that restart gracefully know when all that is wanted has been told."""
        if self.wanted is not None and self.gate.guard is not None and (ends := self.sessions.finished()):
            self.pipe.ask(ends)

    def learn(self) -> None:
        """Asks ExaBGP for everything that is not in the files."""
        neighbors, self.config = words.neighbors_from(self.pipe.show("show neighbor configuration"))
        self.sessions.begin(neighbors)
        self.sessions.asked(words.states_from(self.pipe.show("show neighbor summary")))
        self.told = words.routes_from(self.pipe.show("show adj-rib out"))
        self.gate.look(self.wanted.routes if self.wanted else {}, self.told)
        self.forget_refusals()

    def reload_in(self) -> float | None:
        """Seconds until ExaBGP should be told to reload; None when it runs with what is wanted."""
        if self.wanted is None or self.wanted.config in ("", self.config):
            self.problems["reload"] = ""
            return None
        return max(0.0, self.retry_at - time.monotonic())

    def reload(self) -> None:
        """Tells ExaBGP to reload, and looks whether it did.

        It answers before it reloads, and forgets the command while routes wait for a peer that is down
        (reactor/loop.py, `_pending_adjribout`); so it is told again until it took. It refuses a bad file in silence,
        and every file after that, for its parser is not cleared (configuration.py, `_rollback_reload`).
        """
        wanted = self.wanted.config if self.wanted else ""
        self.pipe.ask(["reload"])
        if words.neighbors_from(self.pipe.show("show neighbor configuration"))[1] == wanted:
            self.learn()
            return
        self.retry_at = time.monotonic() + self.retry_s
        self.retry_s = min(2 * self.retry_s, RETRY_S[1])
        if self.retry_s > 1:
            self.problems["reload"] = f"ExaBGP does not take configuration {wanted}: {REFUSED}"

    def publish(self) -> None:
        """Writes `told`, when it differs from what was written before."""
        refused = {**self.refused, **self.gate.barred}
        value = {
            "pid": os.getpid(),
            "since": self.since,
            "config": self.config,
            "serial": self.settled,
            "announced": [
                {"peer": key[0], "prefix": key[1], **words.BLANK, **self.told[key]} for key in sorted(self.told)
            ],
            "refused": [{"peer": key[0], "prefix": key[1], "why": refused[key]} for key in sorted(refused)],
            "peers": self.sessions.states,
            "agent_gone": self.gone_since,
            "problem": "; ".join(filter(None, [*self.problems.values(), self.gate.problem])),
        }
        self.published_at = time.monotonic()
        if self.watch is None or value == self.published:
            return
        scratch = self.told_file.with_name(f".{self.told_file.name}.{os.getpid()}")
        try:
            scratch.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
            scratch.replace(self.told_file)
            self.published = copy.deepcopy(value)
        except OSError as error:
            complain(f"cannot write {self.told_file}: {error}")


def take(lock: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def complain(message: str) -> None:
    """To ExaBGP's own standard error: the journal."""
    print(f"lbnode relay: {message}", file=sys.stderr, flush=True)


def main() -> None:
    """Arguments: the files `wanted`, `told` and `announceable`."""
    os.umask(0o022)  # ExaBGP's own umask would keep others from reading `told`
    while True:
        relay = Relay(*map(Path, sys.argv[1:4]))
        try:
            relay.run()
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 - dying of it again and again would end every BGP session
            complain(f"cannot go on, beginning anew: {error!r}")
            relay.detach()
            time.sleep(1)


if __name__ == "__main__":
    main()
