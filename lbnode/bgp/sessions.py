"""How ExaBGP's sessions are, as the relay hears of them: asked once, and told since. Standard library only."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from lbnode.bgp import words


class Sessions:
    """`peers`: address -> state (up, down, connected), since (seconds since 1970), reason."""

    def __init__(self) -> None:
        self.peers: dict[str, dict[str, Any]] = {}
        self._heard_of: set[str] = set()

    def expect(self, peers: Iterable[str]) -> None:
        """These are the peers now; those that were known stay as they are."""
        old, self.peers = self.peers, {}
        for peer in peers:
            self.peers[peer] = old.get(peer, {"state": "down", "since": round(time.time(), 3), "reason": ""})
        self._heard_of.clear()

    def learn(self, states: Mapping[str, str]) -> None:
        """What was answered to a question; an event that came meanwhile is newer."""
        for peer in self.peers:
            if peer not in self._heard_of:
                self._set(peer, states.get(peer, "down"), "")

    def hear(self, line: str) -> None:
        """An event. A peer that a reload removed still says that it is down."""
        state = words.state_from(line)
        if state and state[0] in self.peers:
            self._heard_of.add(state[0])
            self._set(*state)

    def _set(self, peer: str, state: str, reason: str) -> None:
        """`since`: when it last came up or ceased to be up. Attempts to connect do not count."""
        old = self.peers.get(peer)
        same = old is not None and (old["state"] == "up") == (state == "up")
        since = old["since"] if old and same else round(time.time(), 3)
        self.peers[peer] = {"state": state, "since": since, "reason": reason or (old["reason"] if old and same else "")}
