"""What clients have asked for is counted on over a reload. HAProxy 2.6 wants to have run for 5 s for that."""

import tempfile
from pathlib import Path

from proxy import Agent, Node, Page, Web, serving, until

from lbnode.plan import Change

LIMITS = {"requests": 5, "per_s": 600}


def test_a_reload_does_not_let_clients_begin_anew() -> None:
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        node = Node(Path(folder))
        wanted = node.write(node.render(node.cluster(clients=LIMITS)))
        with serving(Agent(node.agent)), serving(Web(("127.0.0.1", node.web), Page)), node.running():
            assert node.driver.apply([Change(None, wanted)])[0].error == ""
            until(lambda: node.get(node.vip, "/") == 429)
            until(lambda: "resync_timeout=<PAST>" in node.runtime.command("show peers"), 20)
            wanted = node.write(node.render(node.cluster(clients=LIMITS, balance="leastconn")))
            assert node.driver.apply([Change(node.rows()[0], wanted)])[0].error == ""
            until(lambda: "http_req_rate" in node.runtime.command("show table web:rates"))
            assert node.get(node.vip, "/") == 429
