"""The sessions of ExaBGP as its relay knows them: what they run with, how each is and why. Standard library only."""

import time
from collections.abc import Mapping
from typing import Any

from lbnode.bgp import words
from lbnode.bgp.reasons import silent


class Sessions:
    """`states` by the peer's address: state (up, down, connected), since (seconds since 1970), reason in words.
    `unfinished`: peers whose session has begun and who have not been told yet that they have heard all."""

    def __init__(self) -> None:
        self.neighbors: dict[str, words.Neighbor] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.unfinished: set[str] = set()
        self._heard_of: set[str] = set()

    def begin(self, neighbors: Mapping[str, words.Neighbor]) -> None:
        """Takes these for all there are; what is known of those that stay is kept."""
        self.neighbors, old, now = dict(neighbors), self.states, round(time.time(), 3)
        blank = {"state": "down", "since": now, "reason": ""}
        self.states = {peer: old.get(peer, dict(blank)) for peer in neighbors}
        self._heard_of.clear()

    def asked(self, states: Mapping[str, str]) -> None:
        """What ExaBGP answered; an event that came meanwhile is newer."""
        for peer in self.neighbors.keys() - self._heard_of:
            self._set(peer, states.get(peer, "down"), "")

    def heard(self, line: str) -> None:
        """An event. A peer that a reload removed still says that it is down."""
        state = words.state_from(line)
        if state and state[0] in self.states:
            self._heard_of.add(state[0])
            self._set(*state)

    def finished(self) -> list[str]:
        """The commands that tell peers that restart gracefully, once after each start of their session, that they have
        heard all: what they kept from before and have not heard again, they forget then, and not a moment earlier."""
        due, self.unfinished = sorted(self.unfinished), set()
        return [words.end_of_rib(peer) for peer in due if peer in self.neighbors and self.neighbors[peer].restarts]

    def _set(self, peer: str, state: str, reason: str) -> None:
        """`since`: when it last came up or ceased to be up. Attempts to connect do not count."""
        (self.unfinished.add if state == "up" else self.unfinished.discard)(peer)
        old = self.states[peer]
        same = (old["state"] == "up") == (state == "up")
        reason = reason or (old["reason"] if same else "")
        if state == "down" and not reason:
            reason = silent(self.neighbors[peer].secured)
        self.states[peer] = {"state": state, "since": old["since"] if same else round(time.time(), 3), "reason": reason}
