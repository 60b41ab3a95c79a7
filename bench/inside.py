"""The part of the measurements that needs ip_vs: run by `python -m bench` on the lab's kernel.

python -m bench.inside ROUNDS RESULT.json [QUESTION...]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from bench import bgp, change, cold, idle, large, machine, reaction, start
from lbnode.cli import collect_seldom

QUESTIONS = {
    "cold": cold.measure,
    "change": change.measure,
    "idle": idle.measure,
    "large": large.measure,
    "start": start.measure_inside,
    "bgp": bgp.measure,
    "reaction": reaction.measure,
}


def main(arguments: list[str]) -> int:
    rounds, result, names = int(arguments[0]), Path(arguments[1]), arguments[2:] or list(QUESTIONS)
    found, seconds = [], {}
    collect_seldom()  # as every lbnode process does
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            begin = time.monotonic()
            found += QUESTIONS[name](rounds, Path(directory, "log"))
            seconds[name] = round(time.monotonic() - begin, 1)
    answer = {"kernel": machine.kernel(), "seconds": seconds, "figures": [figure.as_json() for figure in found]}
    result.write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
