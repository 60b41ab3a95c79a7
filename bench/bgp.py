"""How long do 1,000 prefixes take: announced, withdrawn, and there again after ExaBGP was killed and started?

The other side is ExaBGP's plain API, used as its documentation does: a script that ExaBGP runs, which writes a line per
prefix and reads the answers. Both are measured at the router, a BIRD in a namespace of its own, from the moment the
order is given (the file `wanted` is written; the script is told to begin) to the last route. Replay is measured from
the start of ExaBGP. The relay checks every prefix against the list of what may be announced; the script checks nothing.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from bench import clock
from bench.figure import OURS, Figure
from lbnode.bgp import exabgp
from lbnode.bgp.driver import ExabgpDriver
from lbnode.bgp.guard import Guard
from lbnode.bgp.told import read_told
from lbnode.config.load import parse
from lbnode.lab import links
from lbnode.lab.links import Port
from lbnode.lab.namespaces import Node
from lbnode.lab.wait import wait_until
from lbnode.paths import Paths
from lbnode.plan import diff
from lbnode.resources import Announcement, Row, Running
from lbnode.templates import load

PREFIXES = 1_000
PLAIN = "ExaBGP's plain API"
OWN, ROUTER = "192.0.2.11", "192.0.2.1"
PATHS = Paths()
BIRD_CONF, BIRD_SOCKET = Path("/run/bench-bird.conf"), Path("/run/bench-bird.ctl")
BIRD = f"""\
router id {ROUTER};
protocol device {{}}
protocol bgp node {{
  local {ROUTER} as 64500; neighbor {OWN} as 64501; strict bind;
  connect delay time 1; error wait time 1,2; ipv4 {{ import all; export none; }};
}}
"""
CLUSTER = f"""\
bgp: {{local_asn: 64501, peers: {{r1: {{address: {ROUTER}, asn: 64500}}}}}}
nodes: {{l4-1: {{role: l4, ipv4: {OWN}}}}}
"""
SCRIPT = Path("/run/bench-script.py")
ORDERS = Path("/run/bench-orders")
SCRIPT_TEXT = f"""\
import os, sys, time
lines = ["%s route 198.18.%d.%d/32 next-hop {OWN}" % ("%s", i // 250, i % 250) for i in range({PREFIXES})]
def tell(word):
    sys.stdout.write("".join(line % word + "\\n" for line in lines)); sys.stdout.flush()
    for _ in lines: sys.stdin.readline()
if os.path.exists("{ORDERS}"): tell("announce")
else: open("{ORDERS}.ready", "w").close()
before = ""
while True:
    word = open("{ORDERS}").read() if os.path.exists("{ORDERS}") else ""
    if word != before and word: tell(word)
    before = word or before
    time.sleep(0.001)
"""
ROWS = tuple(Announcement(f"198.18.{i // 250}.{i % 250}/32", ROUTER, OWN) for i in range(PREFIXES))
