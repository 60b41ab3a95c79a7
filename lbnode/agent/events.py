"""What wakes the agent besides its timer: a change in the operator's directories, by inotify. An event carries no
meaning; the pass reads the files again."""

from collections.abc import Callable
from contextlib import suppress

from asyncinotify import Inotify, Mask

from lbnode.errors import LbnodeError
from lbnode.paths import Paths

CHANGES = (
    Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.CREATE | Mask.DELETE | Mask.ATTRIB | Mask.DELETE_SELF
)


def open_watch(paths: Paths) -> Inotify:
    """Subscribes; from here on nothing is missed. Raises LbnodeError when the directory cannot be watched."""
    watch = Inotify()
    boot = paths.boot_agent_check.parent
    folders = {paths.etc, paths.cluster_file.parent, boot}
    folders |= {paths.templates} if paths.templates.is_dir() else set()
    with suppress(OSError):
        boot.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        try:
            watch.add_watch(folder, CHANGES)
        except OSError as error:
            watch.close()
            raise LbnodeError(f"cannot watch {folder}: {error.strerror}") from error
    return watch


async def follow(watch: Inotify, wake: Callable[[str], None]) -> None:
    """Wakes for each event, for ever. Names that begin with a dot are files on their way to a rename."""
    async for event in watch:
        name = str(event.name or "")
        if not name.startswith("."):
            wake(f"{name or 'directory'} changed")
