"""Flows by UDP: numbered datagrams to a server that answers each with its name, its life and the number.

Nothing is sent again: a datagram without an answer is lost, and the next number goes out. So the account is exact, and
a flow stands still for as long as no answer comes to any of them. A protocol by UDP that keeps state is broken once
another server answers, or the same one started anew: so are these flows; and, as a client whose socket is connected is
told at once (udp(7)), when a datagram is refused.
"""

import socket
import time
from typing import TYPE_CHECKING

from lbnode.lab.clients.http import Broken, Late, Steps

if TYPE_CHECKING:
    from lbnode.lab.clients.flows import Flow

ANSWER_S = 1.0
"""How long an answer is waited for before the next datagram is sent. A later one still counts."""
MOST = 2048


def datagrams(flow: "Flow") -> Steps[None]:
    """One datagram per tick, and one more when it is to finish; after one without an answer the next at once."""
    connection = flow.connection
    patience_s, connection.patience_s = connection.patience_s, min(ANSWER_S, connection.patience_s)
    connection.quiet = False
    flow.expect()
    yield from connection.open(socket.SOCK_DGRAM)
    flow.port = connection.port
    life, number, last = "", 0, False
    while not last:
        closing, number = flow.finishing, number + 1
        life = yield from _ask(flow, number, life)
        if flow.due and time.monotonic() - flow.due >= patience_s:
            raise Broken(f"receive: nothing for {patience_s:g} s")
        if not flow.due:
            last = closing
            yield from flow.pause()


def _ask(flow: "Flow", number: int, life: str) -> Steps[str]:
    """Sends a datagram and takes answers until its own has come, or none does; returns the server's life. When the
    answer has come, nothing is due."""
    flow.due = flow.due or time.monotonic()
    flow.unanswered[number] = time.monotonic()
    try:
        yield from flow.connection.send(b"%d" % number)
        while number in flow.unanswered:
            answer = yield from flow.connection.receive(MOST)
            life = _heard(flow, answer, life)
            if number in flow.unanswered and not flow.due:
                flow.expect()
    except Late:
        pass
    return life


def _heard(flow: "Flow", answer: bytes, life: str) -> str:
    """Takes an answer to any of the datagrams. Raises Broken unless it comes from where all before it came from."""
    try:
        name, now_life, number = answer.decode().split()
        sent = flow.unanswered.pop(int(number), None)
    except ValueError:
        raise Broken("strange answer") from None
    if sent is None:  # it has come twice, as datagrams may
        return life
    flow.rounds += 1
    if life and (name, now_life) != (flow.backend, life):
        flow.other = name
        anew = "started anew" if name == flow.backend else f"instead of {flow.backend}"
        raise Broken(f"answered by {name}, {anew}")
    flow.backend = name
    flow.passed(len(answer), sent)
    return now_life
