"""The web servers of a lab's backends: nginx, with one generated file per node.

`/` answers with the node's name, `/whoami` with whom the server and HAProxy saw as the client, `/files/N` is a file of
N bytes of which every one is known, `/upload` answers with how many bytes it took in.
"""

import os
from pathlib import Path
from typing import NoReturn

from lbnode.templates import Templates

SIZES = (4 * 1024, 16 * 1024, 64 * 1024, 4 * 1024 * 1024)
"""The files to download: three for many slow flows, one for counting what passes where."""

TEMPLATE = "web.conf.j2"
PATTERN = bytes(range(251))
"""Byte i of every file is i modulo 251: a prime, so that a block that is lost or comes twice shows."""


def content(start: int, stop: int) -> bytes:
    """What a file holds from byte `start` up to, not including, byte `stop`."""
    first = start % len(PATTERN)
    length = stop - start
    return (PATTERN * ((first + length) // len(PATTERN) + 1))[first : first + length]


def write_files(folder: Path) -> None:
    """Makes the files to download. One folder serves every node of a lab."""
    folder.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        (folder / str(size)).write_bytes(content(0, size))


def config(templates: Templates, server: str, run: Path, files: Path) -> str:
    """The nginx configuration of one node. `run` is a directory of its own, where it keeps pid, log and bodies."""
    return templates.render(TEMPLATE, server=server, run=run, files=files)


def become(config_file: Path, run: Path) -> NoReturn:
    """Becomes the server, in the foreground, with nothing of the host's own configuration. For a forked child.

    A socket file of an earlier life that was killed would keep it from starting.
    """
    (run / "upload.sock").unlink(missing_ok=True)
    os.execvp("nginx", ["nginx", "-c", str(config_file), "-e", "stderr"])  # noqa: S606 - there is no shell
