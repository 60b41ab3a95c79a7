"""The cluster file as the agent follows it: taken in when it has changed, and kept as it was while it has mistakes."""

import logging
from collections.abc import Callable

from lbnode.config.model import Cluster
from lbnode.errors import ConfigError, LbnodeError
from lbnode.node import Identity, load_cluster

log = logging.getLogger("lbnode")


class Source:
    """`cluster` is the last good one. Raises ConfigError when there is none at the start."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.cluster: Cluster = load_cluster(identity)
        self._stamp = self._stamped()

    def follow(self, tell: Callable[[str, str], None]) -> None:
        """Reads the file if it is another one; `tell` hears of mistakes, and of their end."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.cluster = load_cluster(self._identity)
        except LbnodeError as error:
            count = f"{len(error.problems)} problems, " if isinstance(error, ConfigError) else ""
            tell("cluster file", f"{count}the last good one stays in force:\n{error}")
        else:
            tell("cluster file", "")
            log.info("cluster file taken in")

    def _stamped(self) -> tuple[int, ...]:
        try:
            found = self._identity.paths.cluster_file.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)
