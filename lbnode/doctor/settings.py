"""Kernel settings: what the role wants, reverse-path filters, router advertisements on a node that forwards. PURE."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lbnode.doctor.finding import Finding, persistent
from lbnode.resources import LINK_PREFIX, Sysctl
from lbnode.roles.direct_return import GRE6, TUNNEL6

CONSEQUENCES = {
    "net.ipv4.vs.sloppy_tcp": "flows that another L4 node has scheduled are dropped here",
    "net.ipv4.vs.schedule_icmp": "ICMP errors of such flows, 'packet too big' above all, do not reach their server",
    "net.ipv4.vs.pmtu_disc": "full-size packets of clients are refused instead of fragmented in the tunnel",
    "net.ipv4.vs.expire_nodest_conn": "flows move for good when a row is taken out and put back",
    "net.ipv4.vs.expire_quiescent_template": "a server at weight 0 loses the flows it has",
    "net.ipv4.vs.conn_reuse_mode": "a client that reuses its port lands on the server of its last flow",
    "net.ipv4.conf.all.accept_local": "a failed server is not seen to come back: its answers are taken for forged",
    "net.ipv4.ip_forward": "no IPv4 packet is passed on",
    "net.ipv6.conf.all.forwarding": "no IPv6 packet is passed on",
    "net.ipv4.ip_nonlocal_bind": "HAProxy does not start or reload while an IPv4 VIP is missing",
    "net.ipv6.ip_nonlocal_bind": "HAProxy does not start or reload while an IPv6 VIP is missing",
} | {
    setting: "packets that anybody sends to this node through a tunnel are taken out and passed on"
    for name in (TUNNEL6, GRE6)
    for setting in (f"net.ipv6.conf.{name}.disable_ipv6", f"net.ipv4.conf.{name}.forwarding")
}
_REVERSE_PATH = ".rp_filter"


def wanted(sysctls: Iterable[Sysctl], actual: Mapping[str, str], apply: str) -> tuple[Finding, ...]:
    """One finding for all that are right, one for each other. Reverse-path filters have a check of their own, and a
    setting that does not exist is told by the module or the device it comes with.

    `apply` is the command that makes the node right.
    """
    rows = [row for row in sysctls if not row.name.endswith(_REVERSE_PATH) and row.name in actual]
    bad = [row for row in rows if actual[row.name] != row.value]
    good = len(rows) - len(bad)
    found = [Finding("sysctls", "ok", f"{good} as the role wants them")] if good else []
    for row in bad:
        what = CONSEQUENCES.get(row.name, "not what the role was tested with")
        mend = f"{apply}; if it comes back, look who sets it in /etc/sysctl.d/"
        found.append(Finding(f"sysctl {row.name}", "fail", f"{actual[row.name]}, wanted {row.value}: {what}", mend))
    return tuple(found)


def reverse_path(of_all: int, devices: Mapping[str, int], apply: str) -> tuple[Finding, ...]:
    """`devices` are the uplinks, and the IPv4 tunnels of ours, with their own rp_filter. The kernel takes the greater
    of `all` and the device; 1 is strict, 2 loose, 0 off (Documentation/networking/ip-sysctl.rst)."""
    effective = {name: max(of_all, value) for name, value in devices.items()}
    good = [name for name in devices if effective[name] != 1]
    words = ", ".join(f"{name} {effective[name]}" for name in good)
    found = [Finding("rp_filter", "ok", f"{words} (greater of all and the device)")] if good else []
    for name in (name for name in devices if effective[name] == 1):
        seen = f"1, strict (all {of_all}, {name} {devices[name]}): "
        if name.startswith(LINK_PREFIX):
            seen += "what clients send through the tunnel is dropped without a word"
            found.append(Finding(f"rp_filter {name}", "fail", seen, f"{apply}; it sets all and {name} to 0"))
        else:
            seen += "packets of clients that come in by another device than the way back takes are dropped"
            names = [who for who, value in (("all", of_all), (name, devices[name])) if value == 1]
            mend = " and ".join(persistent(f"net.ipv4.conf.{who}.rp_filter", "0") for who in names)
            found.append(Finding(f"rp_filter {name}", "warn", seen, mend))
    return tuple(found)


@dataclass(frozen=True)
class Listener:
    """An IPv6 uplink: its accept_ra and forwarding."""

    device: str
    accept_ra: int
    forwarding: int


def router_advertisements(listeners: Sequence[Listener], has_default: bool) -> tuple[Finding, ...]:
    """A device that forwards hears no router advertisements unless accept_ra is 2 (ip-sysctl.rst), and the default
    route it had from them went when forwarding came. With a default route of another origin nothing is missing."""
    found = []
    for one in listeners:
        label, seen = f"accept_ra {one.device}", f"{one.accept_ra}, forwarding {one.forwarding}"
        if one.forwarding and one.accept_ra == 1 and not has_default:
            seen += ": router advertisements are not heard, and there is no IPv6 default route"
            mend = persistent(f"net.ipv6.conf.{one.device}.accept_ra", "2") + "; or give a static default route"
            found.append(Finding(label, "warn", seen, mend))
        else:
            found.append(Finding(label, "ok", seen))
    return tuple(found)
