"""Whether flows that come to the wrong real server get their second chance here, and if not, why not."""

from collections.abc import Iterable
from pathlib import Path

from lbnode.chance import situation
from lbnode.chance.driver import ChanceDriver
from lbnode.config.model import Cluster
from lbnode.doctor.finding import Finding
from lbnode.node import Identity
from lbnode.resources import ChanceFilter, Classifier
from lbnode.roles.second_chance import covered

NAME = "second chance"
WITHOUT = "flows that ECMP moves after a change of real servers are reset"
MENDS = {
    "there is no BPF file system": "mount it (systemd does so), and start the agent anew",
    "the kernel does not let": "run lbnode as root, by the shipped unit",
}


def check(identity: Identity, cluster: Cluster, apply: str, ipv6: Path = Path("/sys/module/ipv6")) -> Iterable[Finding]:
    """Nothing on a node, and in a cluster, that has no use for it. Raises LbnodeError."""
    mine = [service for service in cluster.balanced.values() if identity.name in cluster.real_servers(service)]
    some = [service for service in mine if covered(service)]
    if identity.role == "l4" or not some or not cluster.second_chance.enabled:
        return
    _, found = situation.of(cluster, identity.name, identity.paths)
    if found.refused:
        mend = next((mend for words, mend in MENDS.items() if words in found.refused), "boot Linux 5.10 or newer")
        yield Finding(NAME, "warn", f"{found.refused}; {WITHOUT}", mend)
        return
    rows = ChanceDriver(identity.paths.bpf).observe(()).rows
    filters = {row.device for row in rows if isinstance(row, ChanceFilter) and row.program == found.program}
    if not found.devices:
        mend = "put the node's own address on an Ethernet device, or say second_chance: {enabled: false}"
        yield Finding(NAME, "warn", f"no Ethernet device has this node's own address; {WITHOUT}", mend)
    elif Classifier(found.program) in rows and filters >= set(found.devices):
        yield Finding(NAME, "ok", f"on {', '.join(found.devices)}")
    else:
        yield Finding(NAME, "warn", f"not in force; {WITHOUT}", apply)
    if not cluster.metrics.port:
        mend = "give metrics a port: real servers ask the L4 nodes' agents for their tables there"
        yield Finding(
            f"{NAME} tables", "warn", "metrics.port is 0, so tables are known from the cluster file alone", mend
        )
    # bpf_tcp_check_syncookie answers EPROTONOSUPPORT then (net/core/filter.c, IS_BUILTIN(CONFIG_IPV6)).
    if (ipv6 / "initstate").exists() and any(vip.version == 6 for service in some for vip in service.vips):
        seen = "IPv6 is a module of this kernel, which then cannot check IPv6 SYN cookies for the classifier"
        yield Finding(f"{NAME} ipv6", "warn", seen, "boot a kernel with CONFIG_IPV6=y (Debian: linux-image-amd64)")
