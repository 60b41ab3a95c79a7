"""Asking the agents of other nodes for a page: all at once, each for a few seconds at most."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any

from lbnode.config.model import Cluster

PATIENCE_S = 3.0
PAGE_MAX = 64 * 1024 * 1024
AT_ONCE = 16


def ask(cluster: Cluster, names: Iterable[str], page: str) -> dict[str, dict[str, Any]]:
    """What each node's agent answers to `page` (path and query), as JSON; {"error": why} for one that does not. Every
    address of a node is tried. No proxy is asked, whatever the environment says."""
    return ask_each(cluster, dict.fromkeys(names, page))


def ask_each(cluster: Cluster, pages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The same with a page for each node, by its name."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda item: _ask(cluster, *item), pages.items())
        return dict(zip(pages, answers, strict=True))


def _ask(cluster: Cluster, name: str, page: str) -> dict[str, Any]:
    if not cluster.metrics.port:
        return {"error": "its agent does not listen (metrics.port is 0)"}
    node = cluster.nodes[name]
    why = "it has no address"
    for address in (node.ipv4, node.ipv6):
        if address is not None:
            try:
                return _get(str(address), cluster.metrics.port, page)
            except (OSError, HTTPException, ValueError) as error:
                why = f"{address}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}".lower()
    return {"error": why}


def _get(address: str, port: int, page: str) -> dict[str, Any]:
    """Raises OSError, HTTPException or ValueError."""
    connection = HTTPConnection(address, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        body = answer.read(PAGE_MAX).decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{answer.status}: {body[:200].strip()}")
    found: dict[str, Any] = json.loads(body)
    return found
