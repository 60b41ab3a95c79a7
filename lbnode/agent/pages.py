"""The pages of the agent's site: /metrics for monitoring, /tables for `lbnode explain` on other nodes,
/generations for the second chance on real servers."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lbnode.agent import metrics
from lbnode.agent.http import Maker, Page
from lbnode.config.model import Cluster
from lbnode.errors import LbnodeError
from lbnode.roles.inputs import Desired

Generations = Callable[[Mapping[str, str]], dict[str, Any]]
Look = Callable[[], tuple[Mapping[str, Any], Cluster, Desired]]
"""What the agent knows now: its status, the cluster file, and what it wants this node to be."""


def of(look: Look, generations: Generations) -> dict[str, Maker]:
    """By path. The kernel is asked when a page is; without IPVS there is nothing to add."""

    def told(_query: Mapping[str, str]) -> Page:
        status, cluster, desired = look()
        counters: Mapping[Any, Any] = {}
        if status["role"] == "l4":
            from lbnode.ipvs import counters as ipvs

            with suppress(LbnodeError):
                counters = ipvs.read()
        nodes = cluster.nodes.items()
        names = {str(own): name for name, node in nodes for own in (node.ipv4, node.ipv6) if own}
        body = metrics.text(metrics.Snapshot(status, desired.rows, names, counters))
        return Page(body, metrics.CONTENT_TYPE_LATEST)

    def tables(query: Mapping[str, str]) -> Page:
        status, _, desired = look()
        found: dict[str, Any] = {}
        if status["role"] == "l4":
            from lbnode.agent import tables

            found = tables.read(desired.rows, query.get("service", ""))
        vips = [verdict["name"] for verdict in status["verdicts"] if verdict["kind"] == "vip" and verdict["good"]]
        answer = {"node": status["node"], "announced": vips, "tables": found}
        return Page(json.dumps(answer).encode(), "application/json")

    def remembered(query: Mapping[str, str]) -> Page:
        return Page(json.dumps(generations(query)).encode(), "application/json")

    return {"/metrics": told, "/tables": tables, "/generations": remembered}
