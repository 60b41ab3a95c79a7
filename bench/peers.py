"""The programs lbnode is measured against: their configuration for the same rules, and how they are started."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.site import WEIGHT, Size
from lbnode.lab.namespaces import Node

KEEPALIVED_CONF = Path("/run/keepalived.conf")


def restore_text(size: Size) -> str:
    """What `ipvsadm --restore` reads."""
    lines = []
    for key in size.keys:
        service = f"-t {key.vip}:{key.port}"
        lines.append(f"-A {service} -s mh -b mh-fallback,mh-port\n")
        lines += [f"-a {service} -r {address}:{key.port} -i -w {WEIGHT}\n" for address in size.addresses]
    return "".join(lines)


def keepalived_text(size: Size, weights: Mapping[tuple[int, str], int] | None = None) -> str:
    """keepalived.conf without checkers: every real server counts as up. `weights` by service number and address."""
    lines = []
    for number, key in enumerate(size.keys):
        lines.append(f"virtual_server {key.vip} {key.port} {{\n  lb_algo mh\n  mh-port\n  mh-fallback\n")
        lines.append("  lb_kind TUN\n  protocol TCP\n")
        for address in size.addresses:
            weight = (weights or {}).get((number, address), WEIGHT)
            lines.append(f"  real_server {address} {key.port} {{ weight {weight} }}\n")
        lines.append("}\n")
    return "".join(lines)


def start_keepalived(node: Node) -> "subprocess.Popen[bytes]":
    """Its checker process alone (no VRRP), in the foreground, with nothing to write logs to."""
    argv = ["keepalived", "--dont-fork", "--check", "--no-syslog", "--use-file", str(KEEPALIVED_CONF)]
    argv += ["--pid", "/run/keepalived.pid", "--checkers_pid", "/run/checkers.pid"]
    return node.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
