"""BGP as a node that announces sees it: each session, with what its end means, and what is announced. PURE."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lbnode.config.model import Cluster, Peer
from lbnode.doctor.finding import Finding
from lbnode.roles.next_hops import MEND, next_hops, too_many

_SHOWN = 5
JOURNAL = "journalctl -u lbnode-exabgp"
UNKNOWN = f"on the router: this node as a neighbor, both AS numbers, port 179 open; {JOURNAL}"
MENDS = {
    r"wrong AS|bad peer AS|\b2[,/]2\b": "make the numbers agree: {place}.asn is {asn}, and the router must expect "
    "{own_asn} (local_asn) from {own}",
    r"identifier|\b2[,/]3\b": "two machines have one router id, this node's IPv4 address: give the other one its own",
    r"unacceptable hold time|\b2[,/]6\b": "the router refuses a hold time so short: raise {place}.hold_time_s",
    r"hold timer|\b4[,/]0\b": "nothing was heard for the hold time: ping {address} from {own}; look how busy both are",
    r"too many prefixes|\b6[,/]1\b": "raise the limit of prefixes that the router has for {own}",
    r"shutdown|\b6[,/]2\b": "somebody has shut the session down on the router: enable neighbor {own} there",
    r"not configured|rejected|\b6[,/][35]\b": "on the router: a neighbor {own} with AS {own_asn}",
}
"""What a session's end was said to be, in words or by the numbers of a NOTIFICATION (RFC 4271, 4.5) -> the mend."""


@dataclass(frozen=True)
class Speaking:
    """One peer that a node speaks with: its name and entry in the cluster file, the own AS number and address."""

    name: str
    peer: Peer
    own_asn: int
    own_address: str

    @property
    def label(self) -> str:
        return f"bgp {self.name} {self.peer.address}"


def spoken_with(cluster: Cluster, node: str) -> list[Speaking]:
    """The peers of one node, in the order of the file."""
    found = []
    for name, peer in cluster.bgp.peers.items():
        own = peer.local_address or cluster.nodes[node].address(peer.address.version)
        if own is not None and (peer.nodes is None or node in peer.nodes):
            found.append(Speaking(name, peer, cluster.bgp.local_asn, str(own)))
    return found


def sessions(wanted: Iterable[Speaking], peers: Mapping[str, Mapping[str, Any]]) -> tuple[Finding, ...]:
    """`peers` is what ExaBGP's relay tells, by address; empty when ExaBGP does not run: a finding of its own."""
    found = []
    for one in wanted:
        told = peers.get(str(one.peer.address))
        if not peers:
            found.append(Finding(one.label, "unknown", "ExaBGP does not say", "see exabgp runs"))
        elif told is None:
            found.append(Finding(one.label, "fail", "session is not known to ExaBGP", "lbnode apply; " + JOURNAL))
        elif told["state"] == "up":
            found.append(Finding(one.label, "ok", f"session is up since {_time(told.get('since'))}"))
        else:
            reason = str(told.get("reason") or "")
            words = f" ({reason})" if reason else ""
            seen = f"session is {told['state']} since {_time(told.get('since'))}{words}"
            found.append(Finding(one.label, "fail", seen, _mend(one, reason)))
    return tuple(found)


def _time(since: float | None) -> str:
    if not since:
        return "an unknown time"
    return datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _mend(one: Speaking, reason: str) -> str:
    facts = {"place": f"bgp.peers.{one.name}", "address": one.peer.address, "asn": one.peer.asn}
    facts |= {"own_asn": one.own_asn, "own": one.own_address}
    fitting = (mend for pattern, mend in MENDS.items() if re.search(pattern, reason, re.IGNORECASE))
    return next((mend.format(**facts) for mend in fitting), "") or _unheard(one)


def _unheard(one: Speaking) -> str:
    """Nothing was said: what stands between the two."""
    peer, place = one.peer, f"bgp.peers.{one.name}"
    more = []
    if peer.password_file:
        more.append(f"the same password on both sides ({peer.password_file})")
    if peer.ttl_security:
        more.append(f"TTL security on both sides ({place}.ttl_security: {peer.ttl_security})")
    if peer.passive:
        more.append(f"that the router connects to {one.own_address} port 179 itself, for {place} is passive")
    return "; ".join([UNKNOWN, *more])


def elsewhere() -> Finding:
    """With `speaker: table`: the sessions are not ours to read."""
    mend = "ask it: birdc show protocols, or vtysh -c 'show bgp summary'"
    return Finding("bgp sessions", "unknown", "they are those of BIRD or FRR, which reads our table", mend)


def announced(
    addresses: Sequence[str], wanted: Iterable[str], local: set[str], refused: Mapping[str, str], apply: str
) -> tuple[Finding, ...]:
    """The `addresses` that are announced now against the VIPs that this node may announce (`wanted`) and the addresses
    on its devices (`local`). `refused` maps an address to why ExaBGP did not take it."""
    vips, found = list(dict.fromkeys(wanted)), []
    lost = [address for address in addresses if address not in local]
    strangers = [address for address in addresses if address not in vips and address in local]
    silent = [vip for vip in vips if vip not in addresses]
    good = len(vips) - len(silent)
    if good:
        found.append(Finding("announced", "ok", f"{good} of {len(vips)} VIPs"))
    if lost:
        seen = f"{_some(lost)}: on no device of this node, so packets to them are lost"
        found.append(Finding("announced in vain", "fail", seen, apply))
    if strangers:
        seen = f"{_some(strangers)}: not one of this node's VIPs in the cluster file"
        found.append(Finding("announced besides", "warn", seen, apply))
    for address, why in refused.items():
        found.append(Finding(f"announced {address}", "fail", f"refused by ExaBGP: {why}", JOURNAL))
    if silent and not good:
        mend = "lbnode status says why, and lbnode ready ends maintenance"
        found.append(Finding("announced", "warn", f"none of {len(vips)} VIPs: {_some(silent)}", mend))
    elif silent:
        found.append(Finding("not announced", "warn", _some(silent), "lbnode status says why"))
    return tuple(found)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def relay(problem: str, agent_gone: float | None, then: str) -> tuple[Finding, ...]:
    """What the relay tells of itself: `problem`, "" when all is well, and since when the agent gives no sign of life;
    `then` is what the dead-man rule does about it."""
    found = []
    if agent_gone is not None:
        done = (
            "everything is withdrawn" if then == "withdraw" else "what is announced stays, whatever happens to servers"
        )
        seen = f"no sign of life since {_time(agent_gone)}: {done}"
        mend = "systemctl restart lbnode-agent@ROLE; why it hangs or died: journalctl -u 'lbnode-agent@*'"
        found.append(Finding("agent", "fail" if then == "withdraw" else "warn", seen, mend))
    if problem:
        found.append(Finding("relay", "warn", problem, JOURNAL))
    return tuple(found)


def ecmp(cluster: Cluster) -> Finding:
    """Whether routers can hold as many next hops as nodes announce."""
    if problem := too_many(cluster):
        return Finding("ecmp", "warn", f"{problem}: the others get nothing, and flows move when they come in", MEND)
    most = max((len(nodes) for nodes in next_hops(cluster).values()), default=0)
    return Finding("ecmp", "ok", f"a router gets {most} next hops for a VIP at most")


def lingering(wanted: Iterable[Speaking]) -> tuple[Finding, ...]:
    """Graceful restart is for a speaker that comes back while its node forwards on; for a node that died it is time in
    which flows end nowhere (RFC 4724, 5)."""
    found = []
    for one in wanted:
        if one.peer.graceful_restart_s:
            seen = f"{one.peer.graceful_restart_s} s: if this node dies, so long its share of the packets is lost"
            mend = (
                f"leave out bgp.peers.{one.name}.graceful_restart_s, unless BFD tells the router that the node is dead"
            )
            found.append(Finding(f"graceful restart {one.name}", "warn", seen, mend))
    return tuple(found)
