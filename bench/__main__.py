"""`make bench`: measures here what can be measured here, the rest on the lab's kernel; writes results.json, RESULTS.md.

python -m bench [--rounds N] [QUESTION...]      some questions alone: printed, not written
python -m bench --render                        the page again, from results.json
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import chance, machine, page, start
from lbnode.lab import kernel

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE / "RESULTS.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="only write the page again")
    arguments = parser.parse_args()
    if not arguments.render:
        results = measure(arguments.rounds, arguments.questions)
        if arguments.questions:
            print(page.render(results))
            return 0
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page.render(json.loads(RESULTS.read_text())))
    print(PAGE.read_text())
    return 0


def measure(rounds: int, questions: list[str]) -> dict[str, Any]:
    """Everything, or the named questions."""
    before = machine.load()
    here = start.measure_here(rounds) if not questions or "start" in questions else []
    here += chance.measure_here(rounds) if not questions or "chance" in questions else []
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory, "answer.json")
        status = kernel.run([sys.executable, "-m", "bench.inside", str(rounds), str(answer), *questions])
        if status:
            sys.exit(status)
        inside = json.loads(answer.read_text())
    return {
        "machine": machine.describe(),
        "lab_kernel": inside["kernel"],
        "versions": machine.versions(),
        "load": {"before": before, "after": machine.load()},
        "rounds": rounds,
        "seconds": inside["seconds"],
        "figures": [*inside["figures"], *(figure.as_json() for figure in here)],
    }


if __name__ == "__main__":
    sys.exit(main())
