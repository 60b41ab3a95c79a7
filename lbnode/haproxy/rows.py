"""What HAProxy of an L7 node should run and hold, as rows, with the reasons of a reload. PURE."""

from collections.abc import Mapping

from lbnode.config.model import Cluster
from lbnode.haproxy import render, tables
from lbnode.paths import Paths
from lbnode.resources import Certificate, File, Key, ProxyTable, Row, Running
from lbnode.templates import Templates


def rows(
    templates: Templates,
    cluster: Cluster,
    name: str,
    paths: Paths,
    version: tuple[int, int],
    certificates: Mapping[str, str],
) -> tuple[Row, ...]:
    """Files, and what the running HAProxy should have of them. `certificates`: the fingerprint of each file that could
    be read; the others HAProxy itself will complain about."""
    config = render.config(templates, cluster, name, paths, version)
    found = tables.tables(cluster, paths)
    return (
        *(File(table.path, table.content) for table in found),
        File(str(paths.haproxy_config), config.text, checker="haproxy"),
        Running("haproxy", render.digest(config.text), tuple(config.parts.items())),
        *(Certificate(path, fingerprint) for path, fingerprint in sorted(certificates.items())),
        *(_held(table) for table in found),
        *config.servers,
    )


def reasons(wanted: tuple[Row, ...], loaded: Mapping[str, str]) -> dict[Key, str]:
    """Why HAProxy must be reloaded: which sections differ from those that it was `loaded` with (digests by title)."""
    found: dict[Key, str] = {}
    for row in wanted:
        if isinstance(row, Running) and loaded:
            parts = dict(row.parts)
            titles = [title for title in {**loaded, **parts} if loaded.get(title) != parts.get(title)]
            if titles:
                more = f" and {len(titles) - 3} sections more" if len(titles) > 3 else ""
                found[row.key] = f"a reload: {', '.join(titles[:3])}{more}"
    return found


def _held(table: tables.Table) -> ProxyTable:
    entries = table.entries if table.kind == "crt-list" else tuple(sorted(table.entries))
    return ProxyTable(table.path, table.kind, entries)
