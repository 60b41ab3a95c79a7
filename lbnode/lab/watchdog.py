"""What ends a guest when the process that started it can no longer do so: it was killed, and not even asked.

A parent-death signal alone is not enough. user-mode-linux takes the gentle ones as a request, on which it may hang; and
when its first process is killed outright, those that carry the guest's programs go on for ever, as nobody traces them
any more. So a shell waits at a pipe that only the starting process holds open, and kills the whole process group.
"""

import subprocess
from contextlib import suppress
from pathlib import Path

SCRIPT = 'read -r _ && exit; kill -s KILL -- "-$1"; rm -rf -- "$2"'


class Watchdog:
    """Watches over a process group from its making to `dismiss`. It has a session of its own, so that what is sent to
    ours does not meet it. `work` is a directory of the guest's, which goes with it."""

    def __init__(self, group: int, work: Path) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "sh", str(group), str(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """When the group has ended: its number may soon be somebody else's."""
        with suppress(BrokenPipeError):  # somebody has ended the shell
            self._shell.communicate(b"\n")
