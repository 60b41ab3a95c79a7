"""The agent of an L7 node on loopback, without devices and settings, so that it needs no rights: for measurements.

python -m bench.l7agent ETC RUN

`lbnode check` refuses loopback addresses, which are all that there is here: the cluster file is read without it.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from lbnode import decisions, node
from lbnode.agent import loop
from lbnode.config.model import Cluster
from lbnode.drivers import Driver
from lbnode.files import FileDriver
from lbnode.haproxy import program
from lbnode.haproxy.driver import HaproxyDriver
from lbnode.node import Identity
from lbnode.paths import Paths
from lbnode.roles import desired
from lbnode.roles.inputs import Desired, Inputs


def main(etc: str, run: str) -> None:
    paths = Paths(Path(etc), Path(run))
    drivers: list[Driver] = [FileDriver({"haproxy": program.check}), HaproxyDriver(paths)]
    kinds = {kind for driver in drivers for kind in driver.kinds}

    def proxy_alone(role: str, inputs: Inputs) -> Desired:
        found = desired(role, inputs)  # type: ignore[arg-type]
        return replace(found, rows=tuple(row for row in found.rows if type(row) in kinds))

    def load(path: Path) -> Cluster:
        return Cluster.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

    vars(node).update(load=load)
    vars(decisions).update(desired=proxy_alone)
    vars(loop).update(drivers=lambda _identity: drivers)
    asyncio.run(loop.Agent(Identity("l7", "l7", paths)).run())


if __name__ == "__main__":
    main(*sys.argv[1:])
