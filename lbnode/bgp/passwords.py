"""The TCP MD5 passwords of BGP sessions, each in a file of its own: read when exabgp.conf is made, and never shown.

A password goes into a quoted string of exabgp.conf, and a kernel takes at most 80 bytes (TCP_MD5SIG_MAXKEYLEN,
include/uapi/linux/tcp.h).
"""

import os
import re
import stat
from pathlib import Path

from lbnode.config.model import Cluster
from lbnode.errors import ConfigError, Problem

SOUND = re.compile(r"[!#-&(-\[\]-~]{1,80}", re.ASCII)
LONGEST = 1024
RULE = "use 1 to 80 printable ASCII characters on one line, without blanks, quotes and backslashes"


def read(cluster: Cluster, node_name: str) -> dict[str, str]:
    """The passwords of the peers that a node speaks with, by the peer's name. Raises ConfigError with every problem."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name, peer in cluster.bgp.peers.items():
        if peer.password_file and peer.speaks_with(node_name):
            value, problem, hint = _read(Path(peer.password_file))
            if problem:
                message = f"cannot use it as the password of BGP peer '{name}': {problem}"
                problems.append(Problem(0, 0, message, hint, peer.password_file))
            found[name] = value
    if problems:
        raise ConfigError(problems)
    return found


def _read(path: Path) -> tuple[str, str, str]:
    """The password; or what is wrong, and how to mend it. No part of the content is ever told."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return "", str(error.strerror), "write the password into it; mode 600"
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            return "", "it is not a plain file", ""
        if mode & stat.S_IRWXO:
            return "", f"everybody may use it (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}"
        content = os.read(file, LONGEST)
    finally:
        os.close(file)
    text = content.decode("ascii", "replace").removesuffix("\n").removesuffix("\r")
    if not SOUND.fullmatch(text):
        return "", "its content cannot be a password" if text else "it is empty", RULE
    return text, "", ""
