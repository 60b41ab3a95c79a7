"""The files that the running HAProxy was last seen to agree with, so that a reload that fails leaves them as they were.

Files are written before the reload: were the new ones left there, a HAProxy that starts again would not come up, or
would come up with maps of another configuration.
"""

import json
from contextlib import suppress
from pathlib import Path

from lbnode.haproxy import render
from lbnode.paths import Paths


def keep(paths: Paths) -> None:
    """Remembers the configuration with its maps and lists as they are now. Raises OSError."""
    files = {str(path): path.read_text(encoding="utf-8") for path in (paths.haproxy_config, *_tables(paths))}
    _write(paths.haproxy_loaded, json.dumps(files))


def restore(paths: Paths, running: str) -> None:
    """Puts them back, if that is what HAProxy runs (its digest); maps and lists that have come since are left, for
    nothing speaks of them."""
    with suppress(OSError, ValueError):  # it was never seen to run
        files = json.loads(paths.haproxy_loaded.read_text(encoding="utf-8"))
        if render.digest(files[str(paths.haproxy_config)]) == running:
            for path, content in files.items():
                _put(Path(path), content)


def _put(file: Path, content: str) -> None:
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        _write(file, content)


def _write(file: Path, content: str) -> None:
    """Whole, or not at all."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(content, encoding="utf-8")
    fresh.replace(file)


def _tables(paths: Paths) -> list[Path]:
    """Files on their way to a rename begin with a dot, rejected ones end so."""
    found = paths.haproxy_tables.glob("[!.]*")
    return sorted(path for path in found if path.is_file() and path.suffix != ".rejected")
