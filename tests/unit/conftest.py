"""What tests of a real HAProxy share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy import Agent, Node, Page, Web, serving

from lbnode.plan import Change


@pytest.fixture
def node() -> Iterator[Node]:
    # A socket's path may have 108 bytes, fewer than pytest's own temporary directories need.
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        yield Node(Path(folder))


@pytest.fixture
def agent(node: Node) -> Iterator[Agent]:
    with serving(Agent(node.agent)) as server:
        assert isinstance(server, Agent)
        yield server


@pytest.fixture
def started(node: Node, agent: Agent) -> Iterator[Node]:
    """HAProxy runs with one service and an agent that says up."""
    wanted = node.write(node.render(node.cluster()))
    with serving(Web(("127.0.0.1", node.web), Page)), node.running():
        assert node.driver.apply([Change(None, wanted)])[0].error == ""
        yield node
